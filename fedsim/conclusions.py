"""What a run concludes, in words to hold beside another run's: its verdicts, its evidence, and what did not finish."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fedsim.proof import proofs_of
from fedsim.scenario import Cell, Scenario

SHOWN, FINISHED = "shown", "finished"
"""What is told of a defence, and of a cell, where nothing is wrong."""


def verdicts(results: Mapping[str, Any]) -> dict[str, str]:
    """The verdict on each setting, attack and round, without the figures behind it, which noise moves."""
    found = {}
    for row in results["summary"]:
        read = [reading["verdict"] for reading in row.get("readings", ()) if reading["read"]]
        found[_row_name(row)] = "; ".join(dict.fromkeys(map(_without_figures, [row["verdict"], *read])))
    for row in results.get("inference_summary", ()):
        figure = row["figures"].get(row["headline"]) or {}
        said = f"{'told' if row['told'] else 'not shown to be told'} at rung {row['rung']}"
        undone = ", ".join(row["statuses"]).replace("_", " ")
        found[_row_name(row)] = undone if figure.get("value") is None else said
    return found


def evidence(results: Mapping[str, Any]) -> dict[str, str]:
    """Whether each defence of each setting was shown to be on in every cell that finished; if not, what is lacking."""
    planned = _planned(results)
    lacking: dict[str, list[str]] = {}
    for cell in results["cells"]:
        if cell["status"] != "done":
            continue
        if cell["digest"] not in planned:
            lacking.setdefault(setting_of(cell), []).append("this fedsim cannot tell what was to be on")
            continue
        stated = planned[cell["digest"]].scenario.model_dump(mode="json")
        for proof in proofs_of(stated, cell, results["evidence"].get(cell["digest"], {})):
            lacking.setdefault(f"{setting_of(cell)}: {proof.defence}", []).extend(proof.lacking)
    return {
        name: f"not shown: {'; '.join(dict.fromkeys(reasons))}" if reasons else SHOWN
        for name, reasons in lacking.items()
    }


def states(results: Mapping[str, Any]) -> dict[str, str]:
    """What became of each cell, those among them that the scenario asks for and the results lack."""
    found = {_cell_name(cell.labels, cell.seed): "not among the results" for cell in _planned(results).values()}
    for cell in results["cells"]:
        done = cell["status"] == "done"
        found[_cell_name(cell["labels"], cell["seed"])] = FINISHED if done else f"{cell['status']}: {cell['cause']}"
    return found


def _planned(results: Mapping[str, Any]) -> dict[str, Cell]:
    """The scenario's cells; none where another fedsim wrote what this one cannot read."""
    try:
        return {cell.digest: cell for cell in Scenario(**results["scenario"]).cells()}
    except ValidationError:
        return {}


def _without_figures(verdict: str) -> str:
    return re.split(" by |: ", verdict)[0]


def setting_of(entry: Mapping[str, Any]) -> str:
    """The labels of a cell or a summary row, in words."""
    return ", ".join(entry["labels"].values()) or "the only setting"


def _row_name(row: Mapping[str, Any]) -> str:
    return f"{setting_of(row)}: {row['attack']}, round {row['round']}"


def _cell_name(labels: Mapping[str, str], seed: int) -> str:
    return ", ".join([*labels.values(), f"seed {seed}"])
