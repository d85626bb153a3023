"""Plain words that the whole product shares: for what an adversary stands on, what it is told, and for counts."""

from collections.abc import Mapping, Sequence
from typing import Any

RUNGS = {
    "L0": "nothing but public data: what one would guess without any update",
    "L1": "the final global model, as a black box",
    "L2": "only the sum over many honest clients",
    "L3": "the sum over a small or shrunken cohort",
    "L4": "one client's FedAvg update, without hyper-parameters or labels",
    "L5": "and the learning rate, the local steps and the batch size",
    "L6": "and the labels or their counts, or the private batch's statistics",
    "L7": "a single gradient of one example: the laboratory worst case",
    "L8": "and surrogate data or a generative prior",
    "L9": "malicious: sends every client the same crafted model",
    "L10": "malicious: crafted architectures, one model per client, sybils, a chosen cohort",
    "L11": "malicious, and holding the decryption key or colluding with its holder",
}

KNOWLEDGE = {
    "batch_size": "how many examples are behind the update",
    "labels": "the private labels, unordered",
    "value_range": "the range of valid input values",
    "learning_rate": "the clients' learning rate",
    "local_steps": "the number of local steps",
    "local_epochs": "the number of local epochs",
    "local_batch_size": "the local batch size",
    "batch_stats": "the private batch's normalisation statistics",
    "public": "public data of the same kind",
    "public_labels": "the labels of that public data",
    "columns": "the columns, where the data are a table",
    "planted": "what it planted in the model itself",
    "architecture": "the architecture of the finished model",
    "epochs": "how often each example was trained on",
    "member_rate": "which share of the candidates are members",
}


def titled(attack: Mapping[str, Any]) -> str:
    """The name of an attack's record, with what it is on where the same attack has another record."""
    return f"{attack.get('name')}, {attack['on']}" if attack.get("on") else str(attack.get("name"))


def rung_step(rung: str) -> int:
    """The place of a rung on the ladder; what is no rung comes last."""
    return int(rung[1:]) if rung[1:].isdigit() else 99


def facts_needed(knowledge: Sequence[str], of_deltas: Sequence[str], words: Mapping[str, str]) -> list[str]:
    """What an attack must be told, in ``words`` where these have the fact; some of it of a delta alone."""
    always, then = ([words.get(fact, fact) for fact in facts] for facts in (knowledge, of_deltas))
    return [*always, *(f"{fact} (where the update is a delta)" for fact in then)]


def listed(items: Sequence[str], last: str = "and") -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}" if items else ""


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
