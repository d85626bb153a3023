"""Secure aggregation as state machines over typed messages: Bonawitz et al. (CCS 2017), Bell et al. (CCS 2020)."""

from crypto.secagg.client import STEPS, Client
from crypto.secagg.identity import Identity, enrol
from crypto.secagg.messages import STAGES, Terms
from crypto.secagg.policy import Policy
from crypto.secagg.profiles import PROFILES, Profile
from crypto.secagg.round import RoundResult, run_round, simulate_round
from crypto.secagg.server import Server

__all__ = [
    "PROFILES",
    "STAGES",
    "STEPS",
    "Client",
    "Identity",
    "Policy",
    "Profile",
    "RoundResult",
    "Server",
    "Terms",
    "enrol",
    "run_round",
    "simulate_round",
]
