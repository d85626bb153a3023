"""What the attacks of a run are aimed at: updates on their way, the model that is finished, or both."""

from collections.abc import Iterable
from dataclasses import dataclass

from attacks import inferences, reconstructions
from fedsim.battery import on_model
from fedsim.report.reading import Results, Setting, unique

FROM_UPDATES = {
    "eavesdropper": "whoever reads the wire {} the clients' {} from what crosses it",
    "sum_recipient": "whoever the decrypted sums go to {} the clients' {} from these sums",
}
"""By kind of adversary; all others are the server."""
SERVER = "the server {} its clients' {} from the updates it receives"


@dataclass(frozen=True)
class Aims:
    """Whether examples are rebuilt from updates, anything is inferred from updates, and the finished model is asked."""

    rebuilds: bool
    infers: bool
    model: bool

    @property
    def updates(self) -> bool:
        """Whether any attack reads updates; so it is taken where no attack is known."""
        return self.rebuilds or self.infers or not self.model


def aims(results: Results, among: Iterable[tuple[str, Setting]] | None = None) -> Aims:
    """The aims of all combinations, or of those ``among`` them: by the attacks stated, and by those that were run."""
    pairs = list(results.combinations if among is None else among)
    stated = [results.stated_of(*pair) for pair in pairs] or [results.scenario]
    named = [a for each in stated for a in (each.get("attacks") or results.scenario.get("attacks") or [])]
    names = unique(str(a["name"] if isinstance(a, dict) else a) for a in named)
    records = [r for pair in pairs for c in results.cells_of(*pair) for r in c.get("inferences") or []]
    updates = [r for pair in pairs for c in results.cells_of(*pair) for r in c.get("attacks") or []]
    asked = [name for name in names if name not in inferences()] + [str(r.get("name")) for r in updates]
    inferred = [name for name in names if name in inferences()]
    return Aims(
        rebuilds=any(name not in reconstructions() or reconstructions()[name].needs.update for name in asked),
        infers=any(not on_model(n) for n in inferred) or any(r.get("source") == "updates" for r in records),
        model=any(map(on_model, inferred)) or any(r.get("source") == "model" for r in records),
    )


def asked_of(results: Results, data: str) -> str:
    """What the attacks of the run try, as questions about the clients' ``data``."""
    found = aims(results)
    stated = [results.stated_of(*pair) for pair in results.combinations] or [results.scenario]
    kinds = unique(str((each.get("adversary") or {}).get("kind")) for each in stated)
    what = "rebuild of" if found.rebuilds or not found.infers else "tell of"
    who = unique(FROM_UPDATES.get(kind, SERVER).format(what, data) for kind in kinds) if found.updates else []
    who += [f"a caller of the finished model, or whoever holds it, tell of the clients' {data}"] if found.model else []
    return f"What can {', and what can '.join(who)}?"
