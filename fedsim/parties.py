"""Adversaries other than the server: which protocols have such a party, and who it is in words."""

from typing import TYPE_CHECKING

from strategies.homomorphic import Homomorphic
from strategies.secure_aggregation import SecureAggregation

if TYPE_CHECKING:
    from fedsim.scenario import Scenario

EAVESDROPPER = "eavesdropper"
"""Somebody who reads the wire between clients and server, which has no transport encryption, and holds no key."""
RECIPIENT = "sum_recipient"
"""Whoever the decrypted sum goes to: every client under ``clients_share_key``, elsewhere the server."""
ONLOOKERS = (EAVESDROPPER, RECIPIENT)


def recipient_is_client(scenario: "Scenario") -> bool:
    """Whether decrypted sums go to the clients, and the server gets none."""
    return any(isinstance(d, Homomorphic) and d.holder.holder == "clients" for d in scenario.protocol)


def onlooker_problems(scenario: "Scenario") -> list[str]:
    """Why this scenario's protocol has no such party."""
    adversary = scenario.adversary
    problems = []
    if adversary.kind in ONLOOKERS and adversary.colluders:
        problems.append(
            f"adversary.colluders = {adversary.colluders}: {adversary.kind!r} acts alone; set 0, or leave the kind out"
        )
    if adversary.kind == RECIPIENT and not any(
        isinstance(d, Homomorphic | SecureAggregation) for d in scenario.protocol
    ):
        problems.append(
            f"adversary.kind = {RECIPIENT!r}: nobody is sent a sum alone here, where the server has every update; add "
            "Homomorphic or SecureAggregation, or leave the kind out"
        )
    return problems


def opening(scenario: "Scenario") -> str | None:
    """Who looks, as the threat model's first sentence; None where it is the server."""
    if scenario.adversary.kind == EAVESDROPPER:
        return (
            "Somebody reads the wire between the clients and the server, which has no transport encryption "
            "(eavesdropper); clients and server keep to the protocol."
        )
    if scenario.adversary.kind == RECIPIENT:
        return (
            "A client is curious: the decrypted sums go to every client, and to no server (sum-recipient)."
            if recipient_is_client(scenario)
            else "The server is curious: the decrypted sums go to it (sum-recipient)."
        )
    return None


def sees(scenario: "Scenario") -> str:
    """What the adversary sees and knows from its place, as a sentence."""
    if scenario.adversary.kind == EAVESDROPPER:
        return (
            "It sees every message of the training, but holds no key; where updates are hidden and models are not, it "
            "takes the mean update from two models that follow each other. It knows the architecture and the loss."
        )
    if scenario.adversary.kind == RECIPIENT and recipient_is_client(scenario):
        return (
            "It sees its own messages, follows the model from sum to sum, and takes its own update out of each sum. It "
            "knows the architecture and the loss."
        )
    return "The server sees every message, and knows the architecture, the weights that it sent and the loss."
