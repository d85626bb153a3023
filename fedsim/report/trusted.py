"""Words for what the server receives under a protocol, whom that protocol trusts, and what the other parties see."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedsim.report.wording import MISSING, MUST_TRUST, SERVER_SEES
from fedsim.words import listed

Stack = Sequence[Mapping[str, Any]]
"""A protocol's defences as results.json holds them."""

KEY_HOLDERS = {
    "clients_share_key": (
        "a ciphertext from each client, which it adds without opening; it never holds a sum or the new model",
        "every single client: whoever has one client's key, and the ciphertexts, reads every client",
    ),
    "trusted_decryptor": (
        "a ciphertext from each client, which it adds without opening, and the sum, from the decryptor",
        "the decryptor: it opens whatever the server gives it",
    ),
    "threshold": (
        "a ciphertext from each client, which it adds without opening, and the sum, once all clients open it",
        "that one client at least refuses to open what is not a sum",
    ),
    "server_holds_key": (
        "a ciphertext from each client, which it can decrypt: it holds the key",
        "the server, with everything an update reveals",
    ),
}
"""By who holds the secret key: what the server sees, and what must be trusted."""


def server_sees(stack: Stack) -> str:
    """What reaches the server: the outermost defence decides."""
    if not stack:
        return SERVER_SEES["plain"]
    if stack[-1].get("mode") == "ideal":
        return SERVER_SEES["trusted_adder"]
    if not (holder := _holder(stack)):
        return SERVER_SEES.get(_name(stack[-1]), "what the defence named leaves visible")
    fraction = float(stack[-1].get("encrypted_fraction", 1))
    if not fraction:
        return f"{SERVER_SEES['plain']}: nothing is encrypted"
    clear = "" if fraction == 1 else f"; {1 - fraction:.0%} of each update in the clear"
    return KEY_HOLDERS[holder][0] + clear


def must_trust(stack: Stack) -> str:
    """Whom one relies on, for each defence of the protocol."""
    said = [MUST_TRUST.get(_name(defence), MISSING) for defence in stack] or [MUST_TRUST["plain"]]
    if holder := _holder(stack):
        said[-1] = KEY_HOLDERS[holder][1]
    if stack and stack[-1].get("mode") == "ideal":
        said[-1] = MUST_TRUST["trusted_adder"]
    elif stack and stack[-1].get("profile", "paper") != "paper":
        said[-1] += f"; {MUST_TRUST['weak_profile']}"
    return "; ".join(dict.fromkeys(said))


def others_see(stacks: Mapping[str, Stack]) -> list[list[object]]:
    """Rows of party and what it sees, over all of a run's protocols by name."""
    sharing, deciding = (_under(stacks, holder) for holder in ("clients_share_key", "trusted_decryptor"))
    own = "its own data, every model it is sent, its own update"
    others = "the models they are sent; never another client's update"
    if sharing:
        own += f"; under {sharing} every round's sum, which it decrypts to have the model"
        others += f", unless they get hold of its ciphertext under {sharing}: they have the key"
    rows: list[list[object]] = [["each client", own], ["other clients", others]]
    if deciding:
        rows.append(["the decryptor", f"under {deciding} every sum, and whatever else the server gives it as one"])
    return [
        *rows,
        ["outsiders", "the final model, where it is published"],
        ["the experimenter", "everything; the truth is opened for scoring alone, and no attack receives it"],
    ]


def _under(stacks: Mapping[str, Stack], holder: str) -> str:
    return listed([protocol for protocol, stack in stacks.items() if _holder(stack) == holder])


def _holder(stack: Stack) -> str:
    """Who holds the key of the outermost defence; empty where that is no encryption, or one not known here."""
    encrypts = bool(stack) and stack[-1].get("kind") == "homomorphic"
    holder = str(stack[-1].get("keys", "clients_share_key")) if encrypts else ""
    return holder if holder in KEY_HOLDERS else ""


def _name(defence: Mapping[str, Any]) -> str:
    """The key of a defence in the word lists."""
    kind = str(defence.get("kind"))
    return "sample_dp" if kind == "client_dp" and defence.get("level") == "example" else kind
