"""Runs handed to MLflow and TensorBoard; without these installed, a plain word on what to install."""

import importlib.util
import sys

import pytest

from fedsim import Attack, AttackBudget, Federation, Scenario, Task, run
from fedsim.difference import load_results
from fedsim.store import StoreError
from fedsim.tracking import log_to_mlflow, log_to_tensorboard, scalars


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    task = Task(dataset="digits", model_options={"hidden": [16]})
    attacks = [
        "analytic",
        "loss_membership",
        Attack(name="model_inversion_white_box", budget=AttackBudget(iterations=2)),
    ]
    federation = Federation(clients=2, rounds=2)
    scenario = Scenario(name="tracked", task=task, federation=federation, attacks=attacks, seeds=[0, 1])
    return run(scenario, tmp_path_factory.mktemp("track") / "run").out


def test_every_round_and_every_attack_becomes_a_scalar(folder):
    cell = load_results(folder)["cells"][0]
    found = {(tag, step): value for tag, value, step in scalars(cell)}
    assert [found["training/accuracy", round] for round in (0, 1, 2)] == [r["accuracy"] for r in cell["training"]]
    best = max(value for victim in cell["attacks"][0]["victims"] for value in victim["figures"]["psnr"])
    assert found["analytic/psnr.worst", 1] == best
    errors = [value for victim in cell["attacks"][0]["victims"] for value in victim["figures"]["mse"]]
    assert found["analytic/mse.worst", 1] == min(errors), "the smallest error is the worst for the client"
    told = cell["inferences"][0]
    headline = told["headline"]
    assert found[f"loss_membership/{headline}", told["round"]] == told["figures"][headline]["value"]
    assert found["cost/bytes_up_per_client_round", 2] > 0


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="the extra 'tracking' is not installed")
def test_mlflow_gets_each_cell_once(folder, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.chdir(tmp_path)  # where MLflow puts artefacts for a database of its own
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    results = load_results(folder)
    assert log_to_mlflow(folder, results, uri) == len(results["cells"])
    assert log_to_mlflow(folder, results, uri) == 0
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tracked").experiment_id
    runs = {found.data.tags["digest"]: found for found in client.search_runs([experiment])}
    whole = runs.pop(results["digest"])
    assert runs.keys() == {cell["digest"] for cell in results["cells"]}
    assert all("training/accuracy" in found.data.metrics for found in runs.values())
    assert {found.data.tags["mlflow.parentRunId"] for found in runs.values()} == {whole.info.run_id}
    assert {"report.html", "results.json", "figures"} <= {f.path for f in client.list_artifacts(whole.info.run_id)}


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="the extra 'tracking' is not installed")
def test_a_cell_that_was_cut_off_on_its_way_to_mlflow_is_logged_anew(folder, tmp_path, monkeypatch):
    import mlflow
    from mlflow.exceptions import MlflowException

    monkeypatch.chdir(tmp_path)
    uri, results = f"sqlite:///{tmp_path}/mlflow.db", load_results(folder)

    def gone(*args, **options):
        raise MlflowException("the server is gone")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", gone)
        with pytest.raises(StoreError, match="the server is gone; try again"):
            log_to_mlflow(folder, results, uri)
    assert log_to_mlflow(folder, results, uri) == len(results["cells"])
    client = mlflow.MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("tracked").experiment_id])
    assert len(runs) == 1 + len(results["cells"])
    assert {found.info.status for found in runs} == {"FINISHED"}


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="the extra 'tracking' is not installed")
def test_tensorboard_gets_each_cell(folder, tmp_path):
    results = load_results(folder)
    assert log_to_tensorboard(results, tmp_path) == len(results["cells"]) == len(list(tmp_path.iterdir()))


@pytest.mark.parametrize("package", ["mlflow", "torch.utils.tensorboard"])
def test_what_is_not_installed_is_named_with_the_remedy(folder, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    log = {"mlflow": lambda: log_to_mlflow(folder, {}, "uri")}.get(package, lambda: log_to_tensorboard({}, tmp_path))
    with pytest.raises(StoreError, match=r"not installed; install it with: pip install -e '\.\[tracking\]'"):
        log()
