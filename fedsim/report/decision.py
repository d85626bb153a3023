"""The document's section for the decision: the conditions on which the result stands, and room for those who decide."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fedsim.report.adversaries import CALLER
from fedsim.report.aims import aims
from fedsim.report.blocks import Blanks, Block, Bullets, Heading, Prose, Section, Table
from fedsim.report.inferences import NOT_TOLD
from fedsim.report.reading import Json, Results, unique
from fedsim.report.sections import Context, judgement
from fedsim.report.wording import at_most, finite, number, plain
from fedsim.words import KNOWLEDGE, counted, listed

SIGNED = (
    "Protocol chosen, or none",
    "Conditions beyond those above",
    "Residual risk accepted by (name, role)",
    "Privacy officer (name, date)",
    "Security reviewer (name, date)",
    "ML lead (name, date)",
    "Review again on",
)
RENEWED = (
    "another model, loss or data set, or data of another kind of people;",
    "fewer clients in a round, smaller batches, more rounds or other local training than tested;",
    "a server that sends clients different models, or another architecture than agreed;",
    "an update, metric or log that leaves a client and is not in this document;",
    "a new attack at a rung that this document relies on, or a party who gains a key or more knowledge.",
)


def decision(context: Context) -> Section:
    """Conditions derived from the scenario and the run; the decision itself is left to people."""
    results = context.results
    blocks: list[Block] = [
        Prose(
            "This document decides nothing. Its findings hold for what was simulated; each line below is a setting "
            "that they rest on. Where the deployed system differs in one of them, the findings for that protocol are "
            "void until it is reviewed again."
        ),
        Table("Conditions for every protocol", ["condition", "as reviewed"], _common(results), tone="words cards"),
    ]
    rows: list[list[object]] = [
        [context.swatch(protocol), *row] for protocol in results.protocols for row in conditions(results, protocol)
    ]
    if rows:
        head = ["protocol", "condition", "as reviewed"]
        blocks.append(Table("Conditions of each protocol", head, rows, tone="words cards"))
    blocks += [
        Heading("What voids it besides"),
        Bullets(RENEWED),
        Heading("The decision"),
        Prose(_open_points(results), "caution"),
        Blanks(SIGNED),
    ]
    return Section("decision", "Decision, and what voids it", blocks)


def _open_points(results: Results) -> str:
    chips = [(p, judgement(results, p, s)) for p, s in results.combinations]
    bad = unique(p for p, chip in chips if chip.tone == "bad")
    unsure = unique(p for p, chip in chips if chip.tone == "warn" and chip.text != NOT_TOLD)
    said = [f"To choose {listed(bad, last='or')} is to accept a leak that this run shows."] if bad else []
    said += [f"On {listed(unsure)} this run gives no answer in at least one setting."] if unsure else []
    return " ".join(said) or "No attack of this run broke a protocol: that is a lower bound on the risk, no proof."


def _common(results: Results) -> list[list[object]]:
    """What every protocol's result rests on."""
    stated = [s for combination in results.combinations if (s := results.stated_of(*combination))] or [results.scenario]

    def values(*path: str) -> str:
        return listed(unique(plain(value) for each in stated if (value := _at(each, path)) is not None))

    knows = unique(fact for each in stated for fact in _at(each, ("adversary", "knows")) or [])
    helpers = max((int(_at(each, ("adversary", "colluders")) or 0) for each in stated), default=0)
    aim = aims(results)
    updates = (
        f"{values('adversary', 'kind').replace('_', ' ') or 'not stated'}, helped by "
        f"{counted(helpers, 'client') if helpers else 'no client'}"
    )
    rows: list[list[object]] = [
        ["data", f"{values('task', 'dataset') or 'not stated'}; spread over clients as reviewed"],
        ["model", f"{values('task', 'model') or 'not stated'}; its hash bound, one for all clients of a round"],
        ["training", f"{values('federation', 'algorithm') or 'not stated'}, batches of "
         f"{values('federation', 'batch_size') or 'not stated'}, step {values('federation', 'learning_rate')}"],
        ["rounds", f"at most {values('federation', 'rounds') or 'not stated'}"],
        ["who attacks", listed([*([updates] if aim.updates else []), *([CALLER] if aim.model else [])])],
        ["what the attacker is told", listed([KNOWLEDGE.get(str(k), str(k)) for k in knows]) or "nothing"],
    ]  # fmt: skip
    return rows


def conditions(results: Results, protocol: str) -> list[list[object]]:
    """Cohort, noise, keys and evidence that one protocol's findings rest on: (condition, as reviewed)."""
    rows: dict[str, list[str]] = {}
    among = [setting for p, setting in results.combinations if p == protocol]
    found = [evidence for setting in among for _, evidence in results.evidence_of(protocol, setting)]
    sums = [size for each in found if (size := finite((each.get("cost") or {}).get("fewest_in_a_sum")))]
    for setting in among:
        stated = results.stated_of(protocol, setting)
        for words, value in _cohort(stated, min(sums, default=None)):
            rows.setdefault(words, []).append(value)
        for cell, _ in results.evidence_of(protocol, setting):
            for words, value in _of_cell(stated, cell):
                rows.setdefault(words, []).append(value)
    return [[words, listed(unique(values))] for words, values in rows.items()]


def _cohort(stated: Json, fewest: float | None) -> Iterable[tuple[str, str]]:
    """How many clients hide one another: in the smallest sum of any seed, else as many as were asked."""
    asked = (stated.get("federation") or {}).get("cohort") or (stated.get("federation") or {}).get("clients")
    hides = any(d["kind"] in ("secure_aggregation", "homomorphic") for d in stated.get("protocol") or [])
    if hides and fewest is not None:
        yield "fewest clients in a sum", f"at least {fewest:.0f}"
    elif asked:
        yield "clients asked in a round", f"at least {number(asked)}"


def _of_cell(stated: Json, cell: Json) -> Iterable[tuple[str, str]]:
    for defence in stated.get("protocol") or []:
        yield from _BY_KIND.get(defence["kind"], _nothing)(defence)
    privacy = cell.get("privacy") or {}
    if finite(privacy.get("epsilon")) is not None:
        releases = f"over {number(privacy['releases'])} releases" if privacy.get("releases") else "over the run"
        yield "epsilon", f"{at_most(privacy['epsilon'])} at delta {plain(privacy.get('delta'))}, {releases}"


def _nothing(defence: Json) -> Iterable[tuple[str, str]]:
    return ()


def _client_dp(defence: Json) -> Iterable[tuple[str, str]]:
    yield "clipping norm", f"{plain(defence['clip'])}, enforced by the client's own code"
    yield "noise multiplier z", f"at least {plain(defence['noise_multiplier'])}, for one {defence['level']}"
    if defence["noise_source"] == "seed":
        yield "source of noise", "the operating system's in deployment; this run drew it from its seed"


def _secure_aggregation(defence: Json) -> Iterable[tuple[str, str]]:
    yield "profile", f"{defence['profile'].replace('_', ' ')}, mode {defence['mode']}"
    yield "encoding", f"{defence['bits']} bits within ±{plain(defence['clip'])}"
    if defence["threshold"] is not None:
        yield "threshold", f"at least {defence['threshold']}"


def _homomorphic(defence: Json) -> Iterable[tuple[str, str]]:
    yield "secret key", str(defence["keys"]).replace("_", " ")
    yield "encryption", f"{str(defence['scheme']).upper()}, {defence['preset'] or 'the scheme’s own parameters'}"
    yield "encrypted part of the update", f"at least {100 * defence['encrypted_fraction']:g} %"
    if defence["keys"] in ("trusted_decryptor", "threshold"):
        yield "smallest sum that is opened", f"{defence['minimum_cohort']} updates"


def _client_checks(defence: Json) -> Iterable[tuple[str, str]]:
    yield "client checks", "on, and a client that is alarmed sends nothing"


_BY_KIND: Mapping[str, Callable[[Json], Iterable[tuple[str, str]]]] = {
    "client_dp": _client_dp,
    "secure_aggregation": _secure_aggregation,
    "homomorphic": _homomorphic,
    "client_checks": _client_checks,
}


def _at(stated: Any, path: Iterable[str]) -> Any:
    for key in path:
        stated = stated.get(key) if isinstance(stated, Mapping) else None
    return stated
