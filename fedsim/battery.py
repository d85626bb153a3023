"""What attacks ask of a run: the rounds that each is about, and whether it reads updates or the model itself."""

from collections.abc import Iterable, Mapping
from typing import Any

from attacks import inferences, reconstructions

BATTERY = "battery"
"""The name that stands for every attack that rebuilds data."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "model_inversion": ("model_inversion_white_box", "model_inversion_confidences", "model_inversion_labels"),
    "membership": (
        "loss_membership",
        "confidence_membership",
        "entropy_membership",
        "label_only_membership",
        "lira_online",
        "lira_offline",
    ),
    "attribute_inference": (
        "attribute_imputation",
        "attribute_map",
        "attribute_confidence",
        "attribute_weighted",
        "attribute_label_only",
    ),
}
"""Names that stand for several attacks on the finished model, of which each access level answers some."""


def spelled_out(attacks: Iterable[Any]) -> list[Any]:
    """Attacks, by name or as fields, with each family's members in its place, but for those named besides."""
    fields = [{"name": a} if isinstance(a, str) else a for a in attacks]
    named = {a.get("name") for a in fields if isinstance(a, Mapping)}
    found = list[Any]()
    for attack in fields:
        family = FAMILIES.get(attack.get("name", "")) if isinstance(attack, Mapping) else None
        members = [dict(attack) | {"name": name} for name in family or () if name not in named]
        found += members if family else [attack]
    return found


def on_model(name: str) -> bool:
    """Whether this attack asks the model after a round; all others read updates."""
    return name in inferences() and inferences()[name].needs.source == "oracle"


def rounds_read(name: str, rounds: Iterable[int]) -> set[int]:
    """The rounds whose updates attack ``name`` on ``rounds`` reads."""
    if on_model(name):
        return set()
    if name == BATTERY or (name in reconstructions() and reconstructions()[name].needs.history):
        return {kept for round in rounds for kept in range(1, round + 1)}
    return set(rounds)


def in_its_rounds(attack: Mapping[str, Any], given: Iterable[str], last: int) -> dict[str, Any]:
    """An attack's fields, of which those in ``given`` were stated; an inference without rounds gets its own.

    One on the model takes the one after the ``last`` round, one on updates all rounds together.
    """
    if attack.get("name") not in inferences() or "rounds" in given:
        return dict(attack)
    return dict(attack) | {"rounds": (last,) if on_model(attack["name"]) else tuple(range(1, last + 1))}
