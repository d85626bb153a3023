"""What each attack is after, and the names that published catalogues have for it."""

from collections.abc import Mapping
from dataclasses import dataclass

from attacks import inferences


@dataclass(frozen=True)
class Goal:
    """What an adversary wants, in words, and where NIST AI 100-2e2025, MITRE ATLAS, OWASP and ENISA have it."""

    wants: str
    nist: str
    atlas: str
    owasp: str
    enisa: str

    @property
    def names(self) -> tuple[str, ...]:
        """The identifiers, in the order of ``CATALOGUES``."""
        return self.nist, self.atlas, self.owasp, self.enisa


CATALOGUES = ("NIST AI 100-2e2025", "MITRE ATLAS", "OWASP ML Top 10 (2023)", "ENISA (2021)")
RECONSTRUCTION = "NISTAML.032 data reconstruction"
MEMBERSHIP = "NISTAML.033 membership inference"
INVERT = "AML.T0024.001 invert model"
FROM_UPDATES = f"{INVERT} (the nearest: ATLAS has none for updates)"

INVERSION, MEMBER = "ML03 model inversion", "ML04 membership inference"
INFER_MEMBER = "AML.T0024.000 infer membership"

GOALS: Mapping[str, Goal] = {
    "guess": Goal("what public data alone give: the baseline, no attack", "none", "none", "none", "none"),
    "examples": Goal("rebuild a client's examples", RECONSTRUCTION, FROM_UPDATES, INVERSION, "data disclosure"),
    "labels": Goal("count or name a client's labels", RECONSTRUCTION, FROM_UPDATES, INVERSION, "data disclosure"),
    "words": Goal("tell the words of a client's texts", RECONSTRUCTION, FROM_UPDATES, INVERSION, "data disclosure"),
    "classes": Goal("show what a class looks like to the model", RECONSTRUCTION, INVERT, INVERSION, "oracle"),
    "membership": Goal("tell whether a record was used", MEMBERSHIP, INFER_MEMBER, MEMBER, "oracle"),
    "source": Goal("tell whose a record is", MEMBERSHIP, INFER_MEMBER, MEMBER, "oracle"),
    "attribute": Goal("tell a sensitive column of a known record", RECONSTRUCTION, INVERT, INVERSION, "oracle"),
    "property": Goal(
        "tell a property of a client's records", "NISTAML.034 property inference", "AML.T0024", "none", "oracle"
    ),
    "model": Goal(
        "copy the model",
        "NISTAML.031 model extraction",
        "AML.T0024.002 extract model",
        "ML05 model theft",
        "model disclosure",
    ),
}
"""By key; ``goal_of`` tells which an attack has."""

_BY_NAME = {
    "prior": "guess",
    "label_counts": "labels",
    "ilrg": "labels",
    "embedding_rows": "words",
    "source_inference": "source",
}
_BY_TARGETS = {
    ("labels",): "classes",
    ("inputs", "labels", "column", "values"): "attribute",
    ("features", "layer"): "examples",
    ("holds",): "property",
    (): "model",
}


def goal_of(attack: str) -> str:
    """The key of what a registered attack is after; of what is not registered, examples."""
    if attack in _BY_NAME:
        return _BY_NAME[attack]
    if attack in inferences():
        return _BY_TARGETS.get(inferences()[attack].needs.targets, "membership")
    return "examples"
