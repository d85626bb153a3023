"""Finding a scenario: by the name of a script in ``scenarios/``, or by the path of a script or a TOML file."""

import ast
import os
import runpy
import tomllib
import traceback
from pathlib import Path

from pydantic import ValidationError

from fedsim.names import nearest
from fedsim.scenario import Scenario
from fedsim.search_path import add_folders
from fedsim.tasks import TaskError

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"


class ScriptError(ValueError):
    """The scenario's file cannot be found or does not define a scenario."""


def available_scripts() -> dict[str, Path]:
    """The scenario scripts that ship, by name."""
    return {path.stem: path for path in sorted(SCENARIOS.glob("*.py")) if "scenario = " in path.read_text()}


def story(script: Path) -> str:
    """The first line of the script's docstring: the question that its scenario asks."""
    return (ast.get_docstring(ast.parse(script.read_text())) or "").partition("\n")[0]


def load_scenario(name_or_path: str) -> Scenario:
    """The scenario that a script exposes as ``scenario``, or that a TOML file spells out.

    What lies beside the script, or in the working directory, can be imported from now on: own models and data.
    Raises ScriptError where there is none, and pydantic's ValidationError where it is invalid.
    """
    path = available_scripts().get(name_or_path, Path(name_or_path))
    if not path.is_file():
        offer = nearest(name_or_path, available_scripts())
        raise ScriptError(f"scenario = {name_or_path!r}: neither a file nor a name; {offer}")
    if path.suffix == ".toml":
        try:
            return Scenario.from_toml(path)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ScriptError(f"scenario = {name_or_path!r}: is no TOML ({error}); mend the file") from None
    add_folders([str(path.resolve().parent), os.getcwd()])
    try:
        found = runpy.run_path(str(path), run_name="fedsim_scenario").get("scenario")
    except (ValidationError, TaskError):
        raise
    except Exception as error:  # a script may raise anything
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f" in line {lines[-1]}" if lines else ""
        raise ScriptError(
            f"scenario = {name_or_path!r}: {type(error).__name__}{where}: {error}; mend the script"
        ) from error
    if not isinstance(found, Scenario):
        raise ScriptError(f"scenario = {name_or_path!r}: the script defines no Scenario named 'scenario'; add one")
    return found
