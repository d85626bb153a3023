"""The command line as a user meets it: exit codes, one line for what they can mend, nothing lost."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from fedsim.cli import app
from fedsim.seeds import numpy_generator

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
        (["run", "{script}", "--address", "127.0.0.1:9"], ["127.0.0.1:9", "'inline'", "'ray'"]),
        (["run", "{latin}"], ["latin.toml", "TOML"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(script, tmp_path, arguments, words):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "latin.toml").write_bytes('name = "Zürich"'.encode("latin-1"))
    places = {"file": tmp_path / "file", "latin": tmp_path / "latin.toml"}
    filled = [a.format(script=script(), **places) for a in arguments]
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
        ("seeds=[1 // 0],", ["ZeroDivisionError in line 3"]),
        ('seeds={}["none"],', ["KeyError in line 3", "'none'"]),
        ("seeds=int('x'),", ["ValueError in line 3"]),
    ],
)
def test_a_script_with_a_mistake_says_where(script, more, words):
    done = fedsim("run", script(more))
    assert done.exit_code == 2
    assert all(word in done.stderr for word in words)


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_dry_run_writes_nothing_and_tells_the_threat_model(command, script, tmp_path):
    done = fedsim(command, script(), "--dry-run")
    assert done.exit_code == 0
    for word in ("Threat model", "Bytes", "Actors", "analytic", "parameters"):
        assert word in done.output
    assert not (tmp_path / "runs").exists()


def test_dry_run_checks_every_cell_and_tells_where_threat_models_differ(script):
    done = fedsim("run", script('compare={"protocol": {"bare": [], "dp": [{"kind": "client_dp"}]}},'), "--dry-run")
    assert done.exit_code == 0
    bare, noised = done.output.split("Where it is dp:")
    assert "Threat model of bare:" in bare
    assert "Updates cross the wire as they are." in bare
    assert "noise" in noised.split("Training")[0]
    assert "The server sees every message" not in noised
    done = fedsim("run", script('compare={"task.model": {"good": "mlp", "bad": "resnett"}},'), "--dry-run")
    assert done.exit_code == 2
    assert "resnet" in done.stderr


def test_what_was_typed_is_kept_and_gives_the_same_again(script, tmp_path):
    fedsim("run", script(), "--seed", "3", "--out", "out", "--quiet")
    fedsim("attack", "out", "--attack", "prior", "--victims", "1", "--quiet")
    results = json.loads((tmp_path / "out/results.json").read_text())
    typed = results["environment"]["commands"]
    assert typed == ["fedsim run tiny.py --seed 3 --out out --quiet", "fedsim attack out --attack prior --victims 1"]
    assert typed[0] in (tmp_path / "out/report.html").read_text()
    assert fedsim(*shlex.split(typed[0])[1:]).exit_code == fedsim(*shlex.split(typed[1])[1:]).exit_code == 0
    again = json.loads((tmp_path / "out/results.json").read_text())
    assert (again["cells"], again["summary"]) == (results["cells"], results["summary"])


def test_ctrl_c_says_how_to_go_on_with_every_flag(script, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedsim.cli.run", interrupted)
    monkeypatch.setattr("fedsim.mistakes.os._exit", sys.exit)
    flags = ["--seed", "3", "--seed", "4", "--engine", "ray", "--address", "a:1", "--out", "the run", "--no-truth"]
    done = fedsim("run", script(), *flags)
    assert done.exit_code == 130
    assert f"fedsim run tiny.py {shlex.join(flags)} --resume" in done.stderr


def test_no_truth_promises_no_more_than_it_does():
    text = " ".join(fedsim("run", "--help").output.replace("│", " ").split())
    assert "successful reconstructions and the raw updates" in text


def test_no_victims_are_refused(script):
    fedsim("run", script(), "--out", "out", "--quiet")
    done = fedsim("attack", "out", "--attack", "prior", "--victims", "0")
    assert done.exit_code == 2
    assert "victims = 0" in done.stderr


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("Scenario(name='x', task={'modle': 'mlp'})", "error: task: no field 'modle'; nearest: model\n"),
        ("run(Scenario(name='x', task='diggits'))", "error: task.dataset = 'diggits': unknown name; nearest: digits"),
    ],
)
def test_a_script_run_by_python_is_told_in_one_line_too(mistake, words, tmp_path):
    (tmp_path / "script.py").write_text(f"from fedsim import Scenario, run\n{mistake}\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1


OWN = """
import torch
class Mine(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 3))
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
@pytest.mark.xdist_group("ray")
def test_what_lies_beside_the_script_is_found_from_anywhere(tmp_path, engine):
    for folder in ("there", "here", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "there/mymodel.py").write_text(OWN)
    digits = numpy_generator(0, "own").random((60, 1, 8, 8))
    np.savez(tmp_path / "there/mine.npz", x=digits, y=np.arange(60) % 3)
    own = SMALL.replace('"digits"', '{{"dataset": "mine.npz", "model": "mymodel:Mine"}}')
    (tmp_path / "there/tiny.py").write_text(own.format(more="", rounds=1))
    for folder, arguments in (
        ("here", ["run", "../there/tiny.py", "--out", "../out", "--engine", engine]),
        ("elsewhere", ["attack", "../out", "--attack", "prior", "--engine", engine]),
    ):
        command = [sys.executable, "-m", "fedsim", *arguments]
        done = subprocess.run(command, cwd=tmp_path / folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def _heeds_ctrl_c():
    """A test run in the background is deaf to it, and so would be what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


SLOW_IMPORT = """
import sys, time
class Slow:
    def find_spec(self, name, *rest):
        if name == "{name}":
            print(flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
import fedsim
"""


@pytest.mark.parametrize("name", ["torch", "flwr.app", "fedsim.cells"])
def test_ctrl_c_during_the_imports_ends_in_a_line(name, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_IMPORT.format(name=name)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heeds_ctrl_c,
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "interrupted\n")


def test_list_names_everything():
    text = fedsim("list").output
    for word in ("analytic", "idlg", "quickstart", "digits", "lenet", "dirichlet"):
        assert word in text
    assert text.index("label_counts:") < text.index("inverting_gradients:") < text.index("fedavg_inversion:")


def test_list_names_one_kind_alone():
    told = fedsim("list", "attacks").output
    assert "stopped by: clients that check the model" in told
    assert "quickstart" not in told
    assert "imprint" not in fedsim("list", "datasets").output
    assert "cross_silo_he: A few silos encrypt" in fedsim("list", "scenarios").output
    refused = fedsim("list", "atacks")
    assert refused.exit_code == 2
    assert "nearest: attacks" in refused.output


def test_quiet_prints_nothing(script):
    done = fedsim("run", script(), "--quiet")
    assert (done.exit_code, done.output) == (0, "")


@pytest.mark.slow
def test_ctrl_c_ends_at_once_and_the_run_resumes(script, tmp_path):
    path = script("seeds=list(range(6)),", rounds=40)
    process = subprocess.Popen(
        [sys.executable, path, "--out", "run"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        preexec_fn=_heeds_ctrl_c,
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
