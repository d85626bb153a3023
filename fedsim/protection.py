"""What a protocol promises by its construction: who reads what, how hard it is to break, how many may drop out."""

from collections.abc import Callable

from fedsim.scenario import Scenario
from fedsim.words import counted
from strategies.base import Stage
from strategies.client_dp import ClientDP
from strategies.homomorphic import Homomorphic
from strategies.secure_aggregation import FLOWER, SecureAggregation


def protection(scenario: Scenario) -> dict[str, str]:
    """``reads``, ``security`` and ``survives``, each a phrase for a table."""
    cohort = scenario.federation.cohort or scenario.federation.clients
    hiding = next((defence for defence in scenario.protocol if defence.stage == Stage.HIDE), None)
    if isinstance(hiding, SecureAggregation):
        found = _aggregated(hiding, cohort, scenario.adversary.colluders)
    elif isinstance(hiding, Homomorphic):
        found = _encrypted(hiding, cohort, scenario.adversary.colluders)
    else:
        found = {
            "reads": "the server: every update",
            "security": "nothing is hidden",
            "survives": f"{cohort - 1} of {cohort}",
        }
    if any(isinstance(defence, ClientDP) for defence in scenario.protocol):
        found["reads"] += "; each update is clipped and noised first"
    return found


def _aggregated(defence: SecureAggregation, cohort: int, colluders: int) -> dict[str, str]:
    terms = defence.terms(bytes(16), 1, cohort, 1)
    whole = terms.degree == cohort - 1
    lost = f"{cohort - terms.threshold} of {cohort}" if whole else ""
    lost = lost or f"{terms.degree + 1 - terms.threshold} of the {terms.degree + 1} who hold a client's shares"
    reads = "the server: the sum over who stayed, no single update"
    if colluders:
        reads = f"the server: the sum over who stayed, less what {counted(colluders, 'colluder')} in it tell"
    if defence.mode == "ideal":
        return {
            "reads": f"{reads}; a trusted party adds, and reads every update",
            "security": "that of the trusted party",
            "survives": f"{lost} (as the protocol would)",
        }
    if defence.profile == FLOWER:
        # Its pseudo-random masks grow from 32 bits (github.com/flwrlabs/flower/issues/7522); a client that leaves
        # before its shares are out ends the round.
        return {
            "reads": f"{reads}, if the server keeps to the protocol; weights and losses in clear",
            "security": "32 bits (masks from a 32-bit seed, Mersenne Twister)",
            "survives": f"{lost}, once shares are out",
        }
    kept = "" if defence.profile == "paper" else f" ({defence.safeguards.claim})"
    return {
        "reads": f"{reads}{kept}",
        "security": "128 bits (X25519, masks by AES-256)",
        "survives": f"{lost}, at any stage",
    }


_READERS: dict[str, Callable[[Homomorphic, int], tuple[str, str]]] = {
    "clients_share_key": lambda d, n: (
        "the server: nothing; each client: the sum, and every update that it gets hold of",
        f"{n - 1} of {n}",
    ),
    "trusted_decryptor": lambda d, n: (
        "the server: the sum; the decryptor: what the server gives it",
        f"{n - d.minimum_cohort} of {n}",
    ),
    "server_holds_key": lambda d, n: ("the server: every update", f"{n - 1} of {n}"),
    "threshold": lambda d, n: (
        "the server: the sum that all clients help to open; no party alone reads an update",
        f"{n - 1} of {n} before the sum, none while it is opened",
    ),
}
"""For each key holder, who reads what, and how many of n clients may drop out."""


def _encrypted(defence: Homomorphic, cohort: int, colluders: int) -> dict[str, str]:
    reads, survives = _READERS[defence.keys](defence, cohort)
    if not defence.encrypted_fraction:
        return {"reads": "everybody on the wire: every update", "security": "nothing is hidden", "survives": survives}
    if colluders and defence.keys == "clients_share_key":
        reads = "the server with the client that helps it: every update"
    security = "128 bits (ring-LWE, by the table of the HE standard)"
    if defence.keys == "server_holds_key":
        security += ", none against the server"
    if defence.encrypted_fraction < 1:
        reads += f"; everybody on the wire: {1 - defence.encrypted_fraction:.0%} of each update, in clear"
        security += ", for what is encrypted"
    return {"reads": reads, "security": security, "survives": survives}
