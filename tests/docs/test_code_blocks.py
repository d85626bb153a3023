"""Every block of code in the README and the documentation: Python is run, commands are run or at least parsed."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
import yaml

from attacks import registry
from fedsim.cli import app
from fedsim.policy import Policy
from tests.docs.blocks import PAGES, ROOT, blocks

MEASURING = {"figures.md", "scenarios.md"}
"""Pages whose commands take minutes to hours: they must name what is there, and are not run."""
PYTHON = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]
CONSOLE = [page for page in PAGES if page not in MEASURING and any(block.commands for block in blocks(page))]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, with the checkout's scenarios and documents, and a Flower app to attack."""
    for name in ("scenarios", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "my_app").mkdir()
    for name, kept in {"client_app": "client_app as app", "server_app": "server_app as app", "task": "Net"}.items():
        (tmp_path / "my_app" / f"{name}.py").write_text(f"from tests.docs.small_app import {kept}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_ATTACKS", dict(registry._ATTACKS))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write_files(page, folder):
    for block in blocks(page):
        if block.module:
            (folder / f"{block.module}.py").write_text(block.text)


@pytest.mark.parametrize("page", PYTHON)
def test_python_runs_in_order(page, folder):
    write_files(page, folder)
    names = {"__name__": "page"}
    for number, block in enumerate(blocks(page), start=1):
        if block.language != "python" or block.why:
            continue
        if block.module:
            names |= vars(importlib.import_module(block.module))
        else:
            exec(compile(block.text, f"{page}, block {number}", "exec"), names)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", CONSOLE)
def test_commands_run(page, folder):
    write_files(page, folder)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for block in blocks(page):
        for command in [] if block.why else block.commands:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=folder,
                env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{page}: $ {command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_what_is_there(page, folder):
    write_files(page, folder)
    for block in blocks(page):
        for command in block.commands:
            words = shlex.split(command.partition(" 2> ")[0].partition(" && ")[0])
            assert problem_of(words, made_here(page)) is None, command


def test_the_example_of_a_gate_in_ci_types_what_is_there():
    (job,) = yaml.safe_load((ROOT / "docs/ci/privacy.yml").read_text())["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert any(" check " in command for command in commands)
    for command in commands:
        assert problem_of(shlex.split(command), set()) is None, command
    assert Policy.load(ROOT / "docs/ci/policy.toml").leakage


def made_here(page):
    """The run folders that commands of the page write, and the files that a reader brings."""
    text = PAGES[page].read_text()
    return {*re.findall(r"--out (\S+)", text), *re.findall(r"runs/[\w-]+", text)}


def problem_of(words, made):
    """What is wrong with a typed command, None where nothing is."""
    program, *rest = words
    program = program.removeprefix(".venv/bin/")
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return None if rest[0] in targets else f"no target {rest[0]}"
    if program == "fedsim":
        group = typer.main.get_command(app)
        command = group.get_command(None, rest[0])
        assert command is not None, f"fedsim has no command {rest[0]}"
        command.make_context(rest[0], rest[1:])
        return None
    if program == "pytest":
        paths = [word for word in rest if "/" in word]
        return next((path for path in paths if not (ROOT / path.partition("::")[0]).exists()), None)
    if program == "python" and rest[0] == "-m":
        return None if find_spec(rest[1]) else f"no module {rest[1]}"
    if program == "python" and rest[0] != "-c":
        return None if (ROOT / rest[0]).exists() or rest[0] in made or Path(rest[0]).exists() else f"no {rest[0]}"
    return None if program in ("python", "pip", "ray", "flwr", "git", "cd") else f"unknown program {program}"
