"""The document's section on the attacks: what each was told, how hard it tried, and what was not run, and why."""

from attacks import available, inferences
from fedsim.report.blocks import Block, Bullets, Cell, Folded, Heading, Section, Table
from fedsim.report.crowd import UNMEASURED, crowd_measured
from fedsim.report.reading import Json, Results, unique
from fedsim.report.sections import Context
from fedsim.report.standards import GOALS, goal_of
from fedsim.report.wording import MISSING, plain
from fedsim.words import KNOWLEDGE, counted, listed, rung_step


def suite(context: Context) -> Section:
    """What was run and how; then what was not, so that nobody reads silence as safety."""
    results = context.results
    blocks: list[Block] = [_attacks(results)] if results.attempted else []
    blocks += [Heading("Not run, and not tested"), Bullets(_untested(results))]
    if rest := left_out(results):
        rows: list[list[object]] = [
            [name, GOALS[goal_of(name)].wants, available()[name].needs.rung, why] for name, why in rest
        ]
        table = Table("Registered attacks that this run left out", ["attack", "goal", "from rung", "why"], rows,
                      tone="words cards")  # fmt: skip
        blocks.append(Folded(f"{counted(len(rest), 'attack')} of the battery not run", [table]))
    return Section("suite", "Attacks, and what was not run", blocks)


def left_out(results: Results) -> list[tuple[str, str]]:
    """Every registered attack without a record in this run, with the reason."""
    asked = {str(a.get("name")) for a in results.scenario.get("attacks") or []}
    tried = {str(record.get("name")) for record in results.attempted}
    planted = any((results.stated_of(*c).get("adversary") or {}).get("plant") for c in results.combinations)
    said = {str(entry["name"]): _said(entry) for cell in results.cells for entry in cell.get("not_run") or []}
    return [(name, said.get(name) or _why(name, name in asked, planted)) for name in available() if name not in tried]


def _said(entry: Json) -> str:
    """Why an attack of the battery gave no answer."""
    return f"not applicable: {entry['reason']}" if entry["status"] == "not_applicable" else str(entry["reason"])


def _why(name: str, asked: bool, planted: bool) -> str:
    if asked:
        return "in the scenario, but no cell got as far"
    needs = available()[name].needs
    if "planted" in needs.knowledge and not planted:
        return "needs a crafted model; the adversary of this run sends the agreed one"
    if name in inferences() and inferences()[name].needs.source == "oracle":
        return "asks the finished model; the scenario names no such attack"
    return "not in the scenario"


def _attacks(results: Results) -> Table:
    """What each attack claims to do, what it was told, how hard it tried, and whether it won the case it must win."""
    seen: dict[str, list[Json]] = {}
    for record in results.attempted:
        seen.setdefault(str(record.get("name")), []).append(record)
    rows: list[list[object]] = []
    for name, records in seen.items():
        first = records[0]
        proofs = {record.get("sanity") for record in records}
        won = "lost" if False in proofs else "won" if True in proofs else MISSING
        claim = Cell(str(first.get("claim") or MISSING), str(first.get("paper") or ""))
        rows.append([name, claim, told(first), tried(records), _rounds(records), won])
    head = ["attack", "what it recovers", "what it was told", "budget", "rounds", "sanity case"]
    return Table("One that loses its sanity case proves nothing elsewhere", head, rows, tone="words cards")


def told(record: Json) -> str:
    """The facts that an attack was granted, in words."""
    knows = listed([KNOWLEDGE.get(str(k), str(k)) for k in record.get("knowledge") or []])
    return knows or "nothing besides the view"


def tried(records: list[Json]) -> str:
    """An attack's budget in words, and the most steps that its search took on one victim."""
    budget = {k: v for k, v in sorted((records[0].get("budget") or {}).items()) if v is not None}
    most = max((int(v.get("iterations") or 0) for record in records for v in record.get("victims") or []), default=0)
    steps = f": up to {counted(most, 'step')} a victim" if most else ""
    return f"{plain(budget) if budget else 'its default'}{steps}"


def _rounds(records: list[Json]) -> str:
    return listed(unique(plain(record.get("round")) for record in records))


def _untested(results: Results) -> list[str]:
    """What nobody should take for tested, in sentences."""
    names = unique(str(record.get("name")) for record in results.attempted)
    answered = {str(record.get("name")) for record in results.attempted if record.get("status") == "done"}
    silent = [name for name in names if name not in answered]
    rungs = unique(str(record.get("rung")) for record in results.attempted)
    items = [f"Rungs tried: {listed(sorted(rungs, key=rung_step)) or 'none'}. All others are untested."]
    if silent:
        items.append(f"Tried, but nowhere with an answer that counts: {listed(silent)}.")
    figures = {name for a in results.attacks for v in a.get("victims") or [] for name in v.get("figures") or {}}
    if "lpips" not in figures:
        items.append("LPIPS (perceptual similarity) was not measured: it needs weights that are not shipped.")
    items += [] if crowd_measured(results) else [UNMEASURED]
    reached = {goal_of(name) for name in names}
    missed = [GOALS[key].wants for key in GOALS if key not in reached | {"guess", "examples", "labels", "words"}]
    items += [f"Not part of this run: {'; '.join(missed)}."] if missed else []
    data = unique(label for setting in results.settings for axis, label in setting if axis == "task")
    items += [
        f"Data other than {listed(data) or 'this data set'}, "
        "other models, batch sizes and training lengths behave differently.",
        "Timing, network metadata and the machines themselves were not examined.",
    ]
    return items
