"""Whether a run shows that a protocol's and a service's defences were on, in one word and with what is lacking."""

from dataclasses import dataclass

from fedsim.deployment import Deployment
from fedsim.proof import proofs_of
from fedsim.report.blocks import Chip
from fedsim.report.reading import Results, Setting, unique


@dataclass(frozen=True)
class Shown:
    """The verdict on the evidence of one combination, over its finished cells."""

    word: str
    tone: str
    notes: tuple[str, ...] = ()

    @property
    def lacking(self) -> bool:
        """Whether evidence is missing or speaks against a defence."""
        return self.tone == "bad"

    @property
    def chip(self) -> Chip:
        """The word, told by shape and colour too."""
        return Chip(self.word, self.tone)


def shown_on(results: Results, protocol: str, setting: Setting) -> Shown:
    """Shown, lacking, or nothing to show: where there is no defence, or clients sent nothing to a server that lied."""
    stated, cells = results.stated_of(protocol, setting), results.evidence_of(protocol, setting)
    if not stated:
        return Shown("lacking", "bad", ("the scenario cannot be read, so nothing says what was to be on",))
    if not stated["protocol"] and not Deployment(**stated["deployment"]).protects:
        return Shown("no defence", "none")
    if not cells:
        return Shown("lacking", "bad", ("no run finished",))
    silent = all((evidence.get("wire") or {}).get("forms") == [] for _, evidence in cells)
    if silent and results.stopped(protocol, setting):
        return Shown("clients refused", "good", ("no update was sent, so there was nothing to protect or to measure",))
    found = [proof for cell, evidence in cells for proof in proofs_of(stated, cell, evidence)]
    notes = unique(f"{proof.defence.replace('_', ' ')}: {text}" for proof in found for text in proof.lacking)
    return Shown("lacking", "bad", tuple(notes)) if notes else Shown("shown", "good")
