"""Finding a scenario: by the name of a script in ``scenarios/``, or by the path of a script or a TOML file."""

import runpy
from pathlib import Path

from fedsim.names import nearest
from fedsim.scenario import Scenario

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"


class ScriptError(ValueError):
    """The scenario's file cannot be found or does not define a scenario."""


def available_scripts() -> dict[str, Path]:
    """The scenario scripts that ship, by name."""
    return {path.stem: path for path in sorted(SCENARIOS.glob("*.py")) if "scenario = " in path.read_text()}


def load_scenario(name_or_path: str) -> Scenario:
    """The scenario that a script exposes as ``scenario``, or that a TOML file spells out.

    Raises ScriptError where there is none, and pydantic's ValidationError where it is invalid.
    """
    path = available_scripts().get(name_or_path, Path(name_or_path))
    if not path.is_file():
        raise ScriptError(f"scenario = {nearest(name_or_path, available_scripts())} (nor is it a file)")
    if path.suffix == ".toml":
        return Scenario.from_toml(path)
    found = runpy.run_path(str(path), run_name="fedsim_scenario").get("scenario")
    if not isinstance(found, Scenario):
        raise ScriptError(f"scenario = {name_or_path!r}: the script defines no Scenario named 'scenario'; add one")
    return found
