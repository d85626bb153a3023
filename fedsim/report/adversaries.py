"""The document's section on who attacks: goal, capability, knowledge and rung of each attack, with published names."""

from attacks import available
from fedsim.report.aims import aims
from fedsim.report.blocks import Block, Bullets, Folded, Heading, Prose, Section, Table
from fedsim.report.reading import Json, Results, setting_name, unique
from fedsim.report.sections import Context
from fedsim.report.seen import threat
from fedsim.report.standards import CATALOGUES, GOALS, goal_of
from fedsim.report.wording import MISSING
from fedsim.words import KNOWLEDGE, RUNGS, facts_needed, listed, rung_step

CAPABILITY = {
    "honest_but_curious": "the server, which keeps to the protocol and reads what it receives",
    "eavesdropper": "whoever reads the wire, without keys",
    "sum_recipient": "whoever the decrypted sum goes to",
    "malicious_protocol": "the server, which says in the protocol what is not so",
    "malicious_model": "the server, which chooses the model that it sends",
}
CALLER = "whoever calls the finished model, or holds it"


def adversary(context: Context) -> Section:
    """The threat model's sentences, then one line for each attack of the run."""
    results = context.results
    common, _, by_setting = threat(results)
    alike: dict[str, list[str]] = {}
    for setting, said in by_setting.items():
        alike.setdefault(said, []).append(setting_name(setting))
    settings = [["; ".join(names).capitalize(), said] for said, names in alike.items()]
    blocks: list[Block] = [Bullets(common)] if common else []
    if settings:
        blocks.append(Table("Where settings differ", ["setting", "threat model"], settings, tone="words"))
    aim = aims(results)
    who = unique(
        CAPABILITY.get(kind, kind) + (f", helped by {helpers} clients" if helpers else "")
        for kind, helpers in (_kinds(results) if aim.updates else [])
    )
    who += [CALLER] if aim.model else []
    ranked = _ranked(results)
    if ranked:
        head = ["attack", "goal", "capability: it reads", "knowledge it needs", "rung"]
        goals = unique(goal_of(name) for name in ranked)
        names: list[list[object]] = [[GOALS[key].wants, *GOALS[key].names] for key in goals if key != "guess"]
        blocks += [
            Heading("Goal, capability, knowledge"),
            Prose(f"Who attacks: {'; '.join(who)}."),
            Table("The adversary by attack", head, [_row(*pair) for pair in ranked.items()], tone="words cards"),
            Table("The same goals in published catalogues", ["goal", *CATALOGUES], names, tone="words cards"),
        ]
    blocks.append(
        Folded("The ladder of assumptions, L0 to L11", [Bullets([f"{rung}: {words}" for rung, words in RUNGS.items()])])
    )
    return Section("adversary", "Adversary model", blocks)


def _kinds(results: Results) -> list[tuple[str, int]]:
    """Each kind of adversary in the run, with how many clients help it."""
    stated = [results.stated_of(*combination) for combination in results.combinations] or [results.scenario]
    found = [s.get("adversary") or results.scenario.get("adversary") or {} for s in stated]
    return unique((str(a.get("kind") or MISSING), int(a.get("colluders") or 0)) for a in found)


def _ranked(results: Results) -> dict[str, list[Json]]:
    """The records of each attack that was run, by name; the lowest rung first."""
    seen: dict[str, list[Json]] = {}
    for record in results.attempted:
        seen.setdefault(str(record.get("name")), []).append(record)
    return dict(sorted(seen.items(), key=lambda item: min(rung_step(str(r.get("rung"))) for r in item[1])))


def _row(name: str, records: list[Json]) -> list[object]:
    needs = available()[name].needs if name in available() else None
    rungs = sorted(unique(str(record.get("rung")) for record in records), key=rung_step)
    done = [record for record in records if record.get("status") != "not_applicable"]
    had = unique(str(record["access"]).replace("_", " ") for record in done if record.get("access"))
    knows = facts_needed(needs.knowledge, needs.of_deltas, KNOWLEDGE) if needs else []
    return [
        name,
        GOALS[goal_of(name)].wants,
        f"the model: {listed(had)}" if had else needs.works_on if needs else MISSING,
        listed(knows) or "nothing besides its view",
        listed(rungs),
    ]
