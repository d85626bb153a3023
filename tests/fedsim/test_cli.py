"""The command line as a user meets it: exit codes, one line for what they can mend, nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from fedsim.cli import app

SMALL = """
from fedsim import Attack, Federation, Scenario, main
scenario = Scenario(name="tiny", task="digits", federation=Federation(clients=2, rounds={rounds}), {more}
                    attacks=[Attack(name="analytic", victims=2)])
if __name__ == "__main__":
    main(__file__)
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(more="", rounds=1):
        path = tmp_path / "tiny.py"
        path.write_text(SMALL.format(more=more, rounds=rounds))
        return str(path)

    return write


def fedsim(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_run_writes_what_it_says(script, tmp_path):
    done = fedsim("run", script())
    assert done.exit_code == 0, done.output
    assert "runs/tiny/report.html" in done.output.replace("\n", "")
    results = json.loads((tmp_path / "runs/tiny/results.json").read_text())
    assert results["summary"][0]["verdict"] == "broken at rung L7 by analytic"
    assert (tmp_path / "runs/tiny/report.html").exists()


def test_an_edited_script_gets_a_folder_of_its_own(script, tmp_path):
    assert fedsim("run", script(), "--quiet").exit_code == 0
    assert fedsim("run", script("seeds=[5],"), "--quiet").exit_code == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "quikstart"], ["'quikstart'", "quickstart"]),
        (["run", "{script}", "--out", "{file}"], ["cannot be written"]),
        (["run", "{script}", "--engine", "ray", "--address", "127.0.0.1:9"], ["127.0.0.1:9", "no Ray cluster answers"]),
        (["attack", "nowhere", "--attack", "analytic"], ["no run folder"]),
        (["report", "nowhere"], ["no run folder"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(script, tmp_path, arguments, words):
    (tmp_path / "file").write_text("in the way")
    filled = [a.format(script=script(), file=tmp_path / "file") for a in arguments]
    done = fedsim(*filled)
    assert done.exit_code == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert all(word in lines[0] for word in words)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("attacks2=1,", ["attacks2"]),
        ("seeds=[1, 1],", ["twice"]),
        ('protocol=[{"kind": "client_dp", "delta": 0.0}],', ["delta = 0.0"]),
        ("nonsense", ["SyntaxError"]),
    ],
)
def test_a_script_with_a_mistake_says_where(script, more, words):
    done = fedsim("run", script(more))
    assert done.exit_code == 2
    assert all(word in done.stderr for word in words)


def test_dry_run_writes_nothing_and_tells_the_threat_model(script, tmp_path):
    done = fedsim("run", script(), "--dry-run")
    assert done.exit_code == 0
    for word in ("Threat model", "Bytes", "Actors", "analytic", "parameters"):
        assert word in done.output
    assert not (tmp_path / "runs").exists()


def test_list_names_everything():
    text = fedsim("list").output
    for word in ("analytic", "idlg", "quickstart", "digits", "lenet", "dirichlet"):
        assert word in text


def test_quiet_prints_nothing(script):
    done = fedsim("run", script(), "--quiet")
    assert (done.exit_code, done.output) == (0, "")


@pytest.mark.slow
def test_ctrl_c_ends_at_once_and_the_run_resumes(script, tmp_path):
    path = script("seeds=list(range(6)),", rounds=40)
    process = subprocess.Popen(
        [sys.executable, path, "--out", "run"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("cells.unfinished/*/measured.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "--resume" in errors
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("cells.unfinished/*/measured.json")}
    done = subprocess.run(
        [sys.executable, path, "--out", "run", "--resume", "--quiet"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    finished = {p.parent.name: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("cells/*/measured.json")}
    assert len(finished) == 6
    assert all(finished[p.parent.name] == stamp for p, stamp in kept.items())
