"""The run folder: what it holds is used for its own data only, and a run that ends early leaves nothing in the way."""

import json
import sqlite3

import numpy as np
import pytest

from fedsim import Federation, Scenario, Task, run
from fedsim.again import attack_again, report_again
from fedsim.database import Database
from fedsim.federation import TrainingFailed
from fedsim.seeds import numpy_generator
from fedsim.store import StoreError, exclusive


def scenario(**fields):
    return Scenario(**{"name": "x", "federation": Federation(clients=2), "attacks": ["prior"], **fields})


def broken():
    raise TrainingFailed("round 1 ended without a usable client")


def interrupted(*args, **options):
    raise KeyboardInterrupt


def cut_off_once_trained(monkeypatch, *args, **options):
    with monkeypatch.context() as patch:
        patch.setattr("fedsim.cells.prove_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(*args, **options)


@pytest.fixture
def own(tmp_path):
    """A scenario on a data file, and how to put other examples into that file."""

    def write(purpose):
        draw = numpy_generator(0, purpose)
        np.savez(tmp_path / "mine.npz", x=draw.random((40, 1, 8, 8)), y=np.arange(40) % 2)

    write("first")
    return scenario(task=Task(dataset=str(tmp_path / "mine.npz"))), write


def test_a_stored_view_is_never_scored_against_other_data(own, tmp_path, monkeypatch):
    asked, write = own
    out = tmp_path / "run"
    run(asked, out)
    before = (out / "results.json").read_text()
    write("second")
    with pytest.raises(StoreError, match="trained on other data"):
        attack_again(out, "analytic")
    assert (out / "results.json").read_text() == before
    write("first")
    assert attack_again(out, "analytic").summary


def test_a_run_does_not_go_on_with_other_data(own, tmp_path, monkeypatch):
    asked, write = own
    cut_off_once_trained(monkeypatch, asked, tmp_path / "run")
    write("second")
    with pytest.raises(StoreError, match="trained on other data"):
        run(asked, tmp_path / "run", resume=True)
    write("first")
    assert run(asked, tmp_path / "run", resume=True).summary


def test_a_run_without_truth_goes_on_without_it(tmp_path, monkeypatch):
    out = tmp_path / "run"
    cut_off_once_trained(monkeypatch, scenario(), out, truth=False)
    run(scenario(), out, resume=True)
    assert (out / "results.json").exists()
    assert not list(out.rglob("truth.safetensors"))


def test_a_failed_cell_is_tried_again_when_a_run_goes_on(tmp_path, monkeypatch):
    asked, out = scenario(seeds=[0, 1]), tmp_path / "run"
    import fedsim.cells as cells

    trained, original = [], cells.federate

    def counted(grid, experiment, *rest):
        trained.append(experiment.seed)
        return original(grid, experiment, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(cells, "federate", lambda *a: broken() if a[1].seed else original(*a))
        assert [cell["status"] for cell in run(asked, out).cells] == ["done", "failed"]
        assert [cell["status"] for cell in run(asked, out, resume=True).cells] == ["done", "failed"]
    monkeypatch.setattr(cells, "federate", counted)
    result = run(asked, out, resume=True)
    assert [cell["status"] for cell in result.cells] == ["done", "done"]
    assert trained == [1]


def test_a_run_that_finished_nothing_leaves_nothing_in_the_way(tmp_path, monkeypatch):
    asked, out = scenario(), tmp_path / "run"
    first = run(asked, out)
    import fedsim.store as store

    original = store.os.replace

    def full(source, target):
        if "view.safetensors" in str(target):
            raise OSError(28, "No space left on device")
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(store.os, "replace", full)
        with pytest.raises(StoreError, match="No space left"):
            run(asked, out)
    assert json.loads((out / "results.json").read_text())["summary"] == first.summary
    assert run(asked, out).summary == first.summary


@pytest.mark.parametrize("name", ["view.safetensors", "model.safetensors", "view.json", "training.json", "cell.json"])
def test_a_spoilt_file_is_named_and_its_cell_comes_back(tmp_path, name):
    asked, out = scenario(seeds=[0, 1]), tmp_path / "run"
    first = run(asked, out)
    spoilt = sorted(out.rglob(name))[0]
    spoilt.write_bytes(spoilt.read_bytes()[:20] + b"\xff")
    with pytest.raises(StoreError, match=rf"{name}: cannot be read .*move it away.*--resume"):
        run(asked, out, resume=True) if name == "cell.json" else attack_again(out, "analytic")
    spoilt.parent.rename(tmp_path / "moved")
    assert run(asked, out, resume=True).cells == first.cells


def test_a_spoilt_picture_does_not_end_in_a_traceback(tmp_path):
    out = run(scenario(), tmp_path / "run").out
    (spoilt,) = out.rglob("pictures.safetensors")
    spoilt.write_bytes(b"short")
    with pytest.raises(StoreError, match=r"pictures.safetensors: cannot be read"):
        report_again(out)


def kept(out):
    """What results.sqlite holds: each cell's status and cause, the attacks of its figures, and who did it."""
    with sqlite3.connect(out / "results.sqlite") as held:
        cells = {digest: rest for digest, *rest in held.execute("select digest, status, cause, worker from cells")}
        figures = held.execute("select distinct digest, attack from figures").fetchall()
    return {
        digest: (status, cause, sorted(attack for own, attack in figures if own == digest), worker)
        for digest, (status, cause, worker) in cells.items()
    }


def told(results, worker=None):
    """The same by results.json."""
    return {
        cell["digest"]: (cell["status"], cell["cause"], sorted(a["name"] for a in cell["attacks"]), worker)
        for cell in results["cells"]
    }


def test_the_database_of_a_sweep_follows_what_a_run_mends_and_an_attack_adds(tmp_path, monkeypatch):
    asked, out = scenario(seeds=[0, 1]), tmp_path / "run"
    import fedsim.cells as cells

    original = cells.federate
    with monkeypatch.context() as patch:
        patch.setattr(cells, "federate", lambda *a: broken() if a[1].seed else original(*a))
        first = run(asked, out).results
    database = Database(out / "results.sqlite", asked.digest, asked.name)
    for cell in first["cells"]:
        database.add(cell, worker=7)
    database.close()
    assert kept(out) == told(first, worker=7)
    mended = run(asked, out, resume=True).results
    assert {status for status, *_ in kept(out).values()} == {"done"}
    assert kept(out) == {
        digest: (*rest, 7 if digest == first["cells"][0]["digest"] else None)
        for digest, (*rest, _) in told(mended).items()
    }
    attacked = attack_again(out, "analytic").results
    assert {row[2] == ["analytic", "prior"] for row in kept(out).values()} == {True}
    assert {digest: row[:3] for digest, row in kept(out).items()} == {d: row[:3] for d, row in told(attacked).items()}
    assert sorted(worker or 0 for *_, worker in kept(out).values()) == [0, 7]


def test_a_run_that_no_sweep_made_gets_no_database(tmp_path):
    assert not (run(scenario(), tmp_path / "run").out / "results.sqlite").exists()


def test_a_database_keeps_a_cell_once_however_often_it_is_added(tmp_path):
    results = run(scenario(), tmp_path / "run").results
    database = Database(tmp_path / "results.sqlite", results["digest"], "x")
    for _ in range(2):
        database.add(results["cells"][0], worker=7)
    database.bring_up_to_date(results["cells"])
    database.close()
    assert kept(tmp_path) == told(results, worker=7)


def test_a_report_is_not_written_over_a_run_that_goes_on_or_from_another_schema(tmp_path):
    out = run(scenario(), tmp_path / "run").out
    before = (out / "report.html").read_bytes()
    with exclusive(out), pytest.raises(StoreError, match="another run is writing there"):
        report_again(out)
    (out / "results.json").write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(StoreError, match="schema 99, this is 1"):
        report_again(out)
    assert (out / "report.html").read_bytes() == before


@pytest.mark.parametrize("name", ["report.html", "report.md", "figures"])
def test_a_report_that_cannot_take_its_place_is_named_and_the_old_one_stays(tmp_path, name):
    out = run(scenario(), tmp_path / "run").out
    (out / name).rename(tmp_path / "old")
    (out / name).touch() if name == "figures" else (out / name).mkdir()
    with pytest.raises(StoreError, match=rf"{name}.*: cannot be written"):
        report_again(out)
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []


def test_a_scenario_of_another_version_is_refused_by_its_file(tmp_path):
    out = run(scenario(), tmp_path / "run").out
    held = json.loads((out / "scenario.json").read_text())
    held["scenario"]["colour"] = "blue"
    for content, says in (
        (held, "no field 'colour'"),
        ({"schema_version": 1}, "holds no scenario"),
        ([], "schema None"),
    ):
        (out / "scenario.json").write_text(json.dumps(content))
        with pytest.raises(StoreError, match=f"{out}.*{says}.*read it with the fedsim that wrote it"):
            report_again(out)
