"""Holding a run against a policy: every rule in every setting, passed or broken, with the reason."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from attacks import Knowledge
from fedsim.conclusions import setting_of
from fedsim.inferred import TOLD
from fedsim.policy import SHARES, Leakage, Policy, PolicyError
from fedsim.proof import proofs_of
from fedsim.scenario import Cell, Scenario, explain
from fedsim.store import StoreError, write_bytes
from fedsim.words import counted, listed, rung_step

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Ruling:
    """One rule in one setting; ``says`` gives the figures on which it passed or broke, ``of`` whose they are."""

    rule: str
    setting: str
    passed: bool
    says: str
    of: str = ""
    """The attack and its round, of a rule that judges each."""


def check(results: Mapping[str, Any], policy: Policy, source: Path | str = "results.json") -> list[Ruling]:
    """Every ruling of ``policy`` on the content of a results.json. What was not measured counts as broken.

    Raises PolicyError where ``policy.where`` names no setting of the run, and StoreError, which names ``source``, where
    this fedsim cannot read the scenario.
    """
    cells = [cell for cell in results["cells"] if _covered(cell["labels"], policy)]
    if not cells:
        axes = "; ".join(f"{axis}: {', '.join(labels)}" for axis, labels in results["axes"].items()) or "no axes"
        raise PolicyError(f"where = {policy.where}: the run has no such setting; it compares {axes}")
    try:
        scenario = Scenario(**results["scenario"])
    except ValidationError as error:
        why = "; ".join(explain(error))
        raise StoreError(
            f"{source}: scenario: {why}; check it with the fedsim that wrote it, or run the scenario again"
        ) from None
    planned = {cell.digest: cell for cell in scenario.cells() if _covered(cell.labels, policy)}
    rulings = [*_finished(planned, cells), *_protected(planned, cells, results["evidence"])]
    if policy.min_seeds is not None:
        rulings += _seeds(cells, policy.min_seeds)
    for cell in cells:
        rulings += _cell(cell, results["evidence"].get(cell["digest"], {}), policy)
    summary = [row for row in results["summary"] if _covered(row["labels"], policy)]
    inferred = [row for row in results.get("inference_summary", ()) if _covered(row["labels"], policy)]
    for rule in policy.leakage:
        rows = [row for row in inferred if row["asset"] == rule.asset] if rule.asset in TOLD else summary
        for setting in sorted({setting_of(cell) for cell in cells}):
            rulings += _leakage(rule, setting, [row for row in rows if setting_of(row) == setting])
    return rulings


def _covered(labels: Mapping[str, str], policy: Policy) -> bool:
    return all(labels.get(axis) == label for axis, label in policy.where.items())


def _name(cell: Row) -> str:
    return f"{setting_of(cell)}, seed {cell['seed']}"


def _finished(planned: Mapping[str, Cell], cells: Sequence[Row]) -> Iterator[Ruling]:
    for cell in cells:
        yield Ruling("every cell finished", _name(cell), cell["status"] == "done", str(cell["cause"] or "finished"))
    there = {cell["digest"] for cell in cells}
    for digest, absent in planned.items():
        if digest not in there:
            name = _name({"labels": absent.labels, "seed": absent.seed})
            yield Ruling("every cell finished", name, False, "is not among the results")


def _protected(planned: Mapping[str, Cell], cells: Sequence[Row], evidence: Mapping[str, Row]) -> Iterator[Ruling]:
    """Each defence of each cell was on. A result without evidence proves nothing, whatever its figures."""
    for cell in cells:
        if cell["digest"] not in planned:
            yield Ruling("evidence", _name(cell), False, "the cell is none of the scenario's")
            continue
        stated = planned[cell["digest"]].scenario.model_dump(mode="json")
        for proof in proofs_of(stated, cell, evidence.get(cell["digest"], {})):
            says = "; ".join(proof.lacking) or "measured while it worked"
            yield Ruling(f"evidence of {proof.defence}", _name(cell), proof.shown, says)


def _seeds(cells: Sequence[Row], least: int) -> Iterator[Ruling]:
    for setting in sorted({setting_of(cell) for cell in cells}):
        done = sum(setting_of(cell) == setting and cell["status"] == "done" for cell in cells)
        yield Ruling("min_seeds", setting, done >= least, f"{done} of at least {least} seeds")


def _cell(cell: Row, evidence: Row, policy: Policy) -> Iterator[Ruling]:
    if policy.max_epsilon is not None:
        epsilon, says = _epsilon(cell["privacy"] or {}, policy.epsilon_against)
        held = epsilon is not None and epsilon <= policy.max_epsilon
        yield Ruling("max_epsilon", _name(cell), held, f"{says}, at most {policy.max_epsilon:g}")
    if policy.min_cohort is not None:
        held, says = _cohort(cell, evidence, policy.min_cohort)
        yield Ruling("min_cohort", _name(cell), held, f"{says}, at least {policy.min_cohort}")
    if policy.min_accuracy is not None:
        accuracy = cell["training"][-1].get("accuracy") if cell["training"] else None
        held = accuracy is not None and accuracy >= policy.min_accuracy
        says = "not measured" if accuracy is None else f"accuracy {accuracy:.3f}"
        yield Ruling("min_accuracy", _name(cell), held, f"{says}, at least {policy.min_accuracy:g}")


def _epsilon(stated: Row, against: str | None) -> tuple[float | None, str]:
    """The epsilon that is judged; without ``against``, the one against a server that reads one client's update."""
    by_observer = {str(row["observer"]): row["epsilon"] for row in (stated, *stated.get("observers", ())) if row}
    epsilon = stated.get("epsilon") if against is None else by_observer.get(against)
    beside = "" if against is None else f" against {against}"
    if epsilon is None:
        known = f" (the run states it against: {'; '.join(by_observer)})" if against and by_observer else ""
        return None, f"no epsilon holds{beside}{known}"
    return epsilon, f"epsilon {epsilon:.3g}{beside}"


def _cohort(cell: Row, evidence: Row, least: int) -> tuple[bool, str]:
    """The fewest clients behind anything that crossed the wire readably, or that an attack could start on."""
    wire = evidence.get("wire", {})
    if "forms" not in wire:
        return False, "unknown what the server could read: the run holds no evidence of the wire"
    read = [a["contributors"] for a in cell["attacks"] if a["status"] != "not_applicable" and a["rung"] != "L0"]
    if "plain" in wire["forms"]:
        read.append(1)
    elif wire.get("readable_updates"):
        if "fewest_in_a_sum" not in evidence.get("cost", {}):
            return False, "unknown how many clients are behind what the server could read"
        read.append(evidence["cost"]["fewest_in_a_sum"])
    if not read:
        return True, "the server could read nothing"
    return min(read) >= least, f"{counted(min(read), 'client')} in what the server could read"


def _leakage(rule: Leakage, setting: str, rows: Sequence[Row]) -> Iterator[Ruling]:
    judged = [row for row in rows if row["rung"] != "L0" and rung_step(row["rung"]) <= rung_step(rule.up_to)]
    what = f"{rule.asset} ({rule.judged})" if rule.asset == "examples" else rule.asset
    name = f"leakage of {what} up to {rule.up_to}"
    for attack in rule.attacks:
        if not any(row["attack"] == attack for row in rows):
            yield Ruling(name, setting, False, f"{attack} was not run", attack)
    if not judged and not rule.attacks:
        yield Ruling(name, setting, False, f"no attack at {rule.up_to} or below was run")
    if judged and not any(_bears_on(rule, row) for row in judged):
        yield Ruling(name, setting, False, f"no attack that was run claims anything about {rule.asset}")
    for row in judged:
        passed, says = _verdict(rule, row)
        of = f"{row['attack']}, round {row['round']}"
        yield Ruling(name, setting, passed, f"{of}, at {row['rung']}: {says}", of)


def _bears_on(rule: Leakage, row: Row) -> bool:
    """Whether an attack claims what the rule is about, or would have, had it found anything to start on."""
    if rule.asset in TOLD or "done" not in row["statuses"]:
        return True
    return bool(row["n"]) if rule.asset == "examples" else bool(_readings(rule, row))


def _verdict(rule: Leakage, row: Row) -> tuple[bool, str]:
    """Whether one summary row keeps to the rule; an attack that proved nothing keeps to none."""
    if "not_applicable" in row["statuses"] and row["attack"] in rule.attacks and (kept := _kept_back(row)):
        return False, f"was not run: the scenario does not let the adversary know {listed(kept)}"
    if row["statuses"] == ["not_applicable"]:
        return True, str(row["verdict"])
    if undone := sorted(set(row["statuses"]) - {"done", "not_applicable"}):
        return False, f"proves nothing: {', '.join(undone)}"
    if rule.asset in TOLD:
        return _inferred(rule, row)
    if rule.asset == "examples":
        return _examples(rule, row)
    found = _readings(rule, row)
    if not found:
        return True, f"claims nothing about {rule.asset}"
    worst = max(found, key=lambda reading: reading["high"])
    says = f"{worst['right']:.2f} right, up to {worst['high']:.2f} (guessing {worst['guess']:.2f})"
    return worst["high"] <= rule.at_most, f"{says}, at most {rule.at_most:g}"


def _kept_back(row: Row) -> list[str]:
    """What the scenario did not grant an attack that needs it; what a protocol withholds is not among this."""
    return sorted(set(re.findall(r"needs (\w+) \(rung", row["verdict"])) & {f.name for f in fields(Knowledge)})


def _readings(rule: Leakage, row: Row) -> list[Row]:
    """What the attack read of the labels, or of the sensitive column."""
    return [r for r in row["readings"] if (r["what"] == "labels") == (rule.asset == "labels")]


def _inferred(rule: Leakage, row: Row) -> tuple[bool, str]:
    figure = row["figures"].get(row["headline"]) or {}
    if figure.get("high") is None:
        return False, "gave no figure with an interval"
    said = f"{row['headline']} {figure['value']:.2f}, up to {figure['high']:.2f}"
    beside = f"{figure['guess_name']} {figure['guess']:.2f}"
    return figure["high"] <= rule.at_most, f"{said} ({beside}), at most {rule.at_most:g}"


def _examples(rule: Leakage, row: Row) -> tuple[bool, str]:
    if row["n"] == 0:
        return True, "claims no examples"
    if rule.judged in SHARES:
        share = row["recovered" if rule.judged == "rebuilt" else "identified"]
        return share <= rule.at_most, f"{rule.judged} {share:.2f} of {row['n']}, at most {rule.at_most:g}"
    if row["metric"] != rule.judged:
        return False, f"measured {row['metric']}, not {rule.judged}: this data has no {rule.judged}"
    says = f"{row['metric']} {row['median']:.3g} {row['unit']}, up to {row['high']:.3g}"
    return row["high"] <= rule.at_most, f"{says}, at most {rule.at_most:g}"


def write_junit(rulings: Sequence[Ruling], path: Path, error: str | None = None) -> None:
    """Write the rulings as JUnit XML, a test case each under a name of its own, which CI systems compare over time.

    ``error`` is why there are no rulings: a check that could not be made must not look like one that found nothing.
    """
    broken = sum(not ruling.passed for ruling in rulings)
    counts = {"tests": len(rulings) + (error is not None), "failures": broken, "errors": int(error is not None)}
    suite = ElementTree.Element("testsuite", {"name": "fedsim", **{name: str(count) for name, count in counts.items()}})
    for ruling in rulings:
        name = ", ".join(filter(None, [ruling.rule, ruling.of]))
        case = ElementTree.SubElement(suite, "testcase", classname=ruling.setting, name=name)
        if not ruling.passed:
            ElementTree.SubElement(case, "failure", message=ruling.says)
    if error is not None:
        case = ElementTree.SubElement(suite, "testcase", classname="fedsim", name="the check itself")
        ElementTree.SubElement(case, "error", message=error)
    write_bytes(path, ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))
