"""Runs handed to MLflow and TensorBoard; without these installed, a plain word on what to install."""

import importlib.util
import sys

import pytest

from fedsim import Federation, Scenario, Task, run
from fedsim.difference import load_results
from fedsim.store import StoreError
from fedsim.tracking import log_to_mlflow, log_to_tensorboard, scalars


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    task = Task(dataset="digits", model_options={"hidden": [16]})
    scenario = Scenario(name="tracked", task=task, federation=Federation(clients=2, rounds=2), seeds=[0, 1])
    return run(scenario, tmp_path_factory.mktemp("track") / "run").out


def test_every_round_and_every_attack_becomes_a_scalar(folder):
    cell = load_results(folder)["cells"][0]
    found = {(tag, step): value for tag, value, step in scalars(cell)}
    assert [found["training/accuracy", round] for round in (0, 1, 2)] == [r["accuracy"] for r in cell["training"]]
    best = max(value for victim in cell["attacks"][0]["victims"] for value in victim["figures"]["psnr"])
    assert found["analytic/psnr.worst", 1] == best
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
    runs = client.search_runs([client.get_experiment_by_name("tracked").experiment_id])
    assert {found.data.tags["digest"] for found in runs} == {cell["digest"] for cell in results["cells"]}
    assert all("training/accuracy" in found.data.metrics for found in runs)


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
