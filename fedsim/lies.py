"""Lies and collusion, as a scenario asks for them: which of them a protocol allows, and who tells them."""

from typing import TYPE_CHECKING, Any

from crypto.secagg.lies import LIES
from fedsim.names import nearest
from strategies.federated import FederatedMean
from strategies.flower_lies import FLOWER_LIES
from strategies.flower_server import FlowerMean
from strategies.homomorphic import Homomorphic
from strategies.lying_server import UNTOLD, LyingMean
from strategies.secagg_server import SecureFederatedMean
from strategies.secure_aggregation import FLOWER, SecureAggregation

if TYPE_CHECKING:
    from fedsim.scenario import Adversary, Scenario

LIAR = "malicious_protocol"
"""The kind of adversary that lies in the protocol."""
WITH_COLLUDERS = "sybils"
"""The lie that clients help with, by handing over their own vectors."""


def adversary_problems(adversary: "Adversary") -> list[str]:
    """What is wrong with the lie by itself."""
    lie = adversary.lie
    if (adversary.kind == LIAR) != (lie is not None):
        return [f"kind = {adversary.kind!r}, lie = {lie!r}: {LIAR!r} tells a lie, and no other kind does; set both"]
    if lie is None:
        return []
    if lie not in LIES:
        return [f"lie = {lie!r}: unknown; {nearest(lie, LIES)}"]
    if lie in UNTOLD:
        return [f"lie = {lie!r}: cannot be told in a run: {UNTOLD[lie]}"]
    return []


def collusion_problems(scenario: "Scenario") -> list[str]:
    """Why this scenario's clients cannot collude in its protocol."""
    colluders, lie = scenario.adversary.colluders, scenario.adversary.lie
    if not colluders > 0:
        return []
    if colluders >= scenario.federation.clients:
        return [f"adversary.colluders = {colluders}: leaves no victim among {scenario.federation.clients} clients"]
    return [
        f"adversary.colluders = {colluders}: what it adds to a sum ({defence.kind}) is not modelled; set 0, or "
        "compare plain updates and keys = 'clients_share_key'"
        for defence in scenario.protocol
        if (isinstance(defence, SecureAggregation) and lie is None)
        or (isinstance(defence, Homomorphic) and defence.keys == "trusted_decryptor")
    ]


def lie_problems(scenario: "Scenario") -> list[str]:
    """Why this scenario's lie cannot be told in its protocol."""
    adversary, clients = scenario.adversary, scenario.federation.clients
    aggregation = next((d for d in scenario.protocol if isinstance(d, SecureAggregation)), None)
    if adversary.lie is None:
        return []
    if aggregation is None or aggregation.mode != "protocol":
        return [f"adversary.kind = {LIAR!r}: lies in secure aggregation; add SecureAggregation(mode='protocol')"]
    problems = []
    if adversary.victim >= clients - adversary.colluders:
        problems.append(
            f"adversary.victim = {adversary.victim}: must be one of the honest clients, from 0 to "
            f"{clients - adversary.colluders - 1}"
        )
    if (adversary.lie == WITH_COLLUDERS) != (adversary.colluders > 0):
        problems.append(
            f"adversary.colluders = {adversary.colluders}: {WITH_COLLUDERS!r} is the lie that needs colluders, and the "
            "only one that uses them"
        )
    if aggregation.profile == FLOWER and adversary.lie not in FLOWER_LIES:
        problems.append(f"adversary.lie = {adversary.lie!r}: against {FLOWER!r} choose from {', '.join(FLOWER_LIES)}")
    return problems


def server_of(scenario: "Scenario", aggregation: SecureAggregation, **common: Any) -> FederatedMean:
    """The server's half of secure aggregation: the honest one, a liar, or Flower's own."""
    lie, victim = scenario.adversary.lie, scenario.adversary.victim
    if aggregation.profile == FLOWER:
        return FlowerMean(lie=lie, victim=victim, **common)
    return SecureFederatedMean(**common) if lie is None else LyingMean(lie=lie, victim=victim, **common)


def lies_told(strategy: FederatedMean) -> dict[str, Any]:
    """The lie and what came of it, for the evidence; empty for an honest server."""
    return strategy.evidence() if isinstance(strategy, LyingMean | FlowerMean) else {}


def opening_words(scenario: "Scenario") -> str:
    """What the server does, as the threat model's first sentence."""
    adversary = scenario.adversary
    if adversary.lie is None:
        return f"The server runs the protocol as agreed and is curious ({adversary.kind.replace('_', '-')})."
    claim = LIES[adversary.lie].claim
    return f"The server lies in the protocol to read client {adversary.victim} ({adversary.lie}). {claim}"
