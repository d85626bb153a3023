import json
import math

import pytest
import torch

from fedsim import Adversary, Attack, ClientDP, Federation, Scenario, Task, run
from fedsim.again import attack_again, report_again
from fedsim.store import RunFolder, StoreError, load_view
from fedsim.tasks import TaskError

VARYING = ("environment", "timings", "evidence")


def scenario(**fields):
    return Scenario(
        **{
            "name": "small",
            "federation": Federation(clients=3, rounds=2),
            "attacks": [Attack(name="prior", victims=2), Attack(name="analytic", victims=2, rounds=(1, 2))],
            "seeds": [0, 1],
            "compare": {"protocol": {"none": [], "dp": [ClientDP(noise_multiplier=0.1)]}},
            **fields,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "small"
    return run(scenario(), out)


def row(result, protocol, attack, round=1):
    return next(
        r for r in result.summary if (r["labels"]["protocol"], r["attack"], r["round"]) == (protocol, attack, round)
    )


def test_finds_what_is_exposed_and_what_noise_hides(finished):
    exposed = row(finished, "none", "analytic")
    assert exposed["median"] >= 100
    assert exposed["labels_right"] == 1.0
    assert exposed["verdict"] == "broken at rung L7 by analytic"
    hidden = row(finished, "dp", "analytic")
    assert hidden["worst"] < 20
    assert hidden["verdict"].startswith("not broken at rung L7 by analytic with budget")
    assert exposed["baseline"] == hidden["baseline"] < 20
    assert row(finished, "none", "prior")["median"] <= exposed["baseline"] + 1e-9


def test_says_what_a_reader_needs(finished):
    results = finished.results
    assert results["schema_version"] == 1
    assert {"flwr", "torch"} <= set(results["environment"]["packages"])
    cell = next(c for c in finished.cells if c["labels"]["protocol"] == "dp")
    assert cell["privacy"]["epsilon"] > 0
    assert cell["privacy"]["amplification"].startswith("none")
    assert cell["cost"]["bytes_up_per_client_round"] > 4 * 9610
    assert {"num-examples", "train_loss"} <= {channel["name"] for channel in cell["side_channels"]}
    assert [r["round"] for r in cell["training"]] == [0, 1, 2]
    evidence = results["evidence"][cell["digest"]]
    assert math.isclose(evidence["clients"]["client_dp.noise_std"]["mean"], 0.1, rel_tol=0.05)
    assert evidence["clients"]["client_dp.norm_after"]["max"] <= 1 + 1e-6
    assert evidence["wire"]["same_model_for_all"]
    page = (finished.out / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "private" not in row(finished, "none", "analytic")["verdict"]


def test_the_same_seed_gives_the_same_results(finished, tmp_path):
    again = run(scenario(), tmp_path / "again")
    first, second = ({k: v for k, v in r.results.items() if k not in VARYING} for r in (finished, again))
    assert json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def test_resume_runs_only_what_is_missing(finished, tmp_path, monkeypatch):
    out = tmp_path / "run"
    whole = scenario()
    import fedsim.cells as cells

    trained = []
    original = cells.federate

    def interrupted(grid, experiment, *rest):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(experiment.scenario.digest)
        return original(grid, experiment, *rest)

    monkeypatch.setattr(cells, "federate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(whole, out)
    with pytest.raises(StoreError, match="unfinished run.*--resume"):
        run(whole, out)
    kept = list(trained)
    trained.clear()
    monkeypatch.setattr(cells, "federate", lambda *a: trained.append(a[1].scenario.digest) or original(*a))
    result = run(whole, out, resume=True)
    assert not set(kept) & set(trained)
    assert result.summary == finished.summary


def test_a_stored_view_can_be_attacked_again_without_training(finished, tmp_path, monkeypatch):
    out = tmp_path / "run"
    run(scenario(attacks=[Attack(name="prior", victims=2)], seeds=[0]), out)
    import fedsim.cells as cells

    monkeypatch.setattr(cells, "federate", None)
    result = attack_again(out, "analytic")
    assert row(result, "none", "analytic")["median"] >= 100
    assert row(result, "none", "prior")
    with pytest.raises(StoreError, match=r"rounds \[1\]"):
        attack_again(out, "analytic", rounds=[2])
    assert report_again(out).stat().st_size > 10_000


def test_without_truth_no_private_example_is_written(tmp_path):
    from fedsim.experiment import Experiment
    from fedsim.truth import truth_of

    whole = scenario(seeds=[0], compare=None, attacks=["prior", "label_counts"], federation=Federation(clients=3))
    result = run(whole, tmp_path / "run", truth=False)
    private = truth_of(Experiment(whole), 1, 0).inputs.numpy().tobytes()
    files = [path for path in result.out.rglob("*") if path.is_file()]
    assert not any(path.name == "truth.safetensors" for path in files)
    assert not any(private in path.read_bytes() for path in files)
    assert len(result.summary) == 2


def test_views_survive_storage(finished):
    folder = RunFolder.open(finished.out, scenario())
    cell = scenario().cells()[0]
    from fedsim.experiment import Experiment

    view = load_view(folder.cell(cell.digest), Experiment(cell.scenario).initial_model())
    observed = list(view.observations(round=1))
    assert [o.client for o in observed] == [0, 1, 2]
    assert all(o.kind == "gradient" and all(torch.isfinite(t).all() for t in o.update.values()) for o in observed)
    assert view.party == "server"
    assert {m.direction for m in view.messages} == {"sent", "received"}


def test_a_folder_of_another_scenario_is_left_untouched(finished):
    before = {p: p.stat().st_mtime_ns for p in finished.out.rglob("*")}
    with pytest.raises(StoreError, match="another scenario"):
        run(scenario(seeds=[5]), finished.out)
    with pytest.raises(TaskError, match="diabolo"):
        run(scenario(task=Task(dataset="diabolo")), finished.out)
    with pytest.raises(StoreError, match="rounds"):
        attack_again(finished.out, "analytic", rounds=[9])
    assert {p: p.stat().st_mtime_ns for p in finished.out.rglob("*")} == before


def test_a_rerun_that_fails_keeps_the_earlier_results(tmp_path, monkeypatch):
    small = scenario(seeds=[0], compare=None)
    first = run(small, tmp_path / "run")
    import fedsim.cells as cells
    from fedsim.federation import TrainingFailed

    def broken(*args):
        raise TrainingFailed("round 1 ended without a usable client")

    monkeypatch.setattr(cells, "federate", broken)
    with pytest.raises(StoreError, match=r"usable client.*kept"):
        run(small, tmp_path / "run")
    assert json.loads((first.out / "results.json").read_text())["summary"] == first.summary


def test_a_failed_training_is_named_and_never_scored(tmp_path):
    diverging = scenario(
        seeds=[0],
        compare=None,
        federation=Federation(clients=2, rounds=3, algorithm="fedavg", batch_size=4, learning_rate=1e8),
        attacks=["analytic"],
    )
    result = run(diverging, tmp_path / "run")
    assert result.cells[0]["status"] == "failed"
    assert result.cells[0]["attacks"] == []
    assert result.problems


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    import os

    import fedsim.store as store

    def full(*args):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(store.os, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        run(scenario(seeds=[0], compare=None), tmp_path / "run")


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_inline_and_ray_give_the_same_bits(finished, tmp_path):
    result = run(scenario(), tmp_path / "ray", engine="ray")
    first, second = ({k: v for k, v in r.results.items() if k not in VARYING} for r in (finished, result))
    assert json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


@pytest.mark.parametrize("task", ["wine", "records", "messages", "faces"])
def test_every_modality_reaches_the_report(task, tmp_path):
    model = "transformer" if task == "messages" else "mlp"
    asked = scenario(
        task=Task(dataset=task, model=model),
        seeds=[0],
        compare=None,
        attacks=["prior", "analytic"],
        federation=Federation(clients=2),
        adversary=Adversary(knows=["public", "batch_size"]),
    )
    result = run(asked, tmp_path / "run")
    statuses = {a["name"]: a["status"] for a in result.cells[0]["attacks"]}
    assert statuses["prior"] == "done"
    assert statuses["analytic"] == ("not_applicable" if task == "messages" else "done")
    assert result.problems == []


def test_flower_runs_one_cell_and_says_which(monkeypatch, tmp_path):
    from fedsim import experiment

    said = []
    monkeypatch.setattr(experiment.log, "warning", lambda text, *values: said.append(text % values))
    (tmp_path / "s.toml").write_text('name = "x"\nseeds = [7, 8]\n[compare."federation.clients"]\ntwo = 2\nfour = 4\n')
    assert experiment.experiment_from_config({"scenario": str(tmp_path / "s.toml")}).seed == 7
    assert said == ["This run is of the first cell alone (two, seed 7); `fedsim run` also runs the other 3"]
