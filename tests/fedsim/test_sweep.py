"""Sweeps on Ray: the figures of a plain run, whatever dies on the way, and nothing lost or double."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fedsim import Deployment, Federation, Task, run
from fedsim.database import Database
from fedsim.scenario import Scenario
from fedsim.store import StoreError, exclusive

ROOT = Path(__file__).parents[2]

SCRIPT = """
from fedsim import *
scenario = Scenario(
    name="sweep", task=Task(dataset="digits", model={model!r}, model_options={options}),
    federation=Federation(clients=2), attacks=["analytic"], seeds=range({seeds}),
    compare={{"federation.batch_size": {{"1": 1, "2": 2}}}},
)
"""

MODEL = """
import os, time
from pathlib import Path
import ray
from torch import nn

class Net(nn.Module):
    '''Slow, or deadly, where a file beside it says so.'''
    def __init__(self):
        super().__init__()
        self.flat, self.out = nn.Flatten(), nn.Linear(64, 10)

    def forward(self, inputs):
        mood = Path(__file__).with_name("mood")
        if mood.exists() and ray.is_initialized() and ray.get_runtime_context().get_actor_id():
            word = mood.read_text()
            time.sleep(float(word)) if word != "die" else os._exit(9)
        return self.out(self.flat(inputs))
"""


def write(folder, *, seeds=2, own=False):
    (folder / "own_net.py").write_text(MODEL)
    model = "own_net:Net" if own else "mlp"
    options = {} if own else {"hidden": [16]}
    path = folder / "sweep.py"
    path.write_text(SCRIPT.format(model=model, options=options, seeds=seeds))
    return path


def command(script, out, *flags):
    return [sys.executable, "-m", "fedsim", "sweep", str(script), "--out", str(out), *flags]


def compared(folder):
    results = json.loads((Path(folder) / "results.json").read_text())
    return {name: results[name] for name in ("scenario", "cells", "summary", "digest")}


def rows(out):
    with sqlite3.connect(out / "results.sqlite") as database:
        return database.execute("select digest, status, node, worker, cause from cells").fetchall()


def figures(out):
    with sqlite3.connect(out / "results.sqlite") as database:
        return sorted(database.execute("select * from figures").fetchall(), key=repr)


def waiting_for(out, count, seconds=120):
    """Until the database holds ``count`` cells."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if len(rows(out)) >= count:
                return
        except sqlite3.Error:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not {count} cells in {seconds} s")


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_sweep_gives_the_figures_of_a_run(tmp_path):
    from fedsim.scripts import load_scenario
    from fedsim.sweep import sweep

    scenario = load_scenario(str(write(tmp_path)))
    run(scenario, tmp_path / "run")
    result = sweep(scenario, tmp_path / "sweep")
    assert not result.problems
    assert compared(tmp_path / "run") == compared(tmp_path / "sweep")
    held = rows(tmp_path / "sweep")
    assert sorted(digest for digest, *_ in held) == sorted(cell.digest for cell in scenario.cells())
    assert {status for _, status, *_ in held} == {"done"}
    with sqlite3.connect(tmp_path / "sweep" / "results.sqlite") as database:
        psnr = [v for (v,) in database.execute("select value from figures where metric = 'psnr' order by rowid")]
    assert len(psnr) == sum(len(v["figures"]["psnr"]) for c in result.cells for a in c["attacks"] for v in a["victims"])


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_training_that_cells_share_is_done_once_a_worker(tmp_path):
    from fedsim.sweep import sweep

    access = {"full": Deployment(), "labels": Deployment(access="label_only"), "top": Deployment(access="confidences")}
    scenario = Scenario(
        name="shared",
        task=Task(dataset="digits", model_options={"hidden": [16]}),
        federation=Federation(clients=2),
        attacks=["analytic", "loss_membership"],
        seeds=[0, 1],
        compare={"deployment": access},
    )
    run(scenario, tmp_path / "run")
    swept = sweep(scenario, tmp_path / "sweep").results
    assert compared(tmp_path / "run") == compared(tmp_path / "sweep")
    workers = {digest: worker for digest, _, _, worker, _ in rows(tmp_path / "sweep")}
    told = sorted(value for *_, metric, value in figures(tmp_path / "sweep") if metric == "auc")
    attacked = [entry["figures"] for cell in swept["cells"] for entry in cell["inferences"] if entry["figures"]]
    assert told == sorted(found["auc"]["value"] for found in attacked)
    assert len(told) == 4, "labels alone have no loss"
    spent = {digest: timings["training_seconds"] for digest, timings in swept["timings"].items()}
    once = {(cell["seed"], workers[cell["digest"]]): spent[cell["digest"]] for cell in swept["cells"]}
    assert set(spent.values()) == set(once.values())


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_the_database_tells_what_the_results_do_whatever_was_done_since(tmp_path):
    from fedsim.again import attack_again
    from fedsim.sweep import sweep

    out = tmp_path / "out"
    scenario = Scenario(
        name="later",
        task=Task(dataset="digits", model_options={"hidden": [16]}),
        federation=Federation(clients=2),
        attacks=["analytic"],
    )
    sweep(scenario, out)
    (swept,) = rows(out)
    attack_again(out, "prior")
    assert {attack for _, attack, *_ in figures(out)} == {"analytic", "prior"}
    assert rows(out) == [swept], "who trained the cell is forgotten"
    with sqlite3.connect(out / "results.sqlite") as database:
        database.execute("update cells set status = 'failed', cause = 'an earlier mistake'")
    sweep(scenario, out, resume=True)
    assert [(status, cause) for _, status, _, _, cause in rows(out)] == [("done", None)]
    sweep(scenario, out)
    assert {attack for _, attack, *_ in figures(out)} == {"analytic"}
    assert [path.parent for path in out.rglob("results.sqlite")] == [out]
    assert rows(out)[0][2] is not None


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_data_that_changed_since_are_not_mixed_into_a_sweep(tmp_path):
    from fedsim.sweep import sweep

    scenario = Scenario(name="own", task=Task(dataset=str(tmp_path / "mine.npz")), federation=Federation(clients=2))
    inputs, labels = np.random.default_rng(0).random((40, 1, 4, 4), np.float32), np.arange(40) % 2
    np.savez(tmp_path / "mine.npz", x=inputs, y=labels)
    sweep(scenario, tmp_path / "out")
    held = rows(tmp_path / "out")
    np.savez(tmp_path / "mine.npz", x=inputs[::-1], y=labels)
    with pytest.raises(StoreError, match="was trained on other data"):
        sweep(scenario, tmp_path / "out", resume=True)
    assert rows(tmp_path / "out") == held


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(1200)
def test_a_hundred_cells_survive_a_killed_driver_and_a_killed_worker(tmp_path):
    script, out = write(tmp_path, seeds=50, own=True), tmp_path / "out"
    (tmp_path / "mood").write_text("0.02")
    driver = subprocess.Popen(command(script, out, "--quiet"), cwd=ROOT, start_new_session=True)
    waiting_for(out, 30)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    kept = rows(out)
    refused = subprocess.run(command(script, out), cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    driver = subprocess.Popen(command(script, out, "--resume", "--quiet"), cwd=ROOT)
    waiting_for(out, 60)
    (killed,) = {worker for *_, worker, _ in rows(out)[-1:]}
    os.kill(killed, signal.SIGKILL)
    assert driver.wait() == 0
    assert set(kept) <= set(rows(out)), "a finished cell was run again"
    assert len(rows(out)) == 100
    after = {worker for *_, worker, _ in rows(out)} - {worker for *_, worker, _ in kept}
    assert len(after) > 2, "nobody took the killed worker's place"
    assert {status for _, status, *_ in rows(out)} == {"done"}
    (tmp_path / "mood").unlink()
    subprocess.run(command(script, tmp_path / "whole", "--quiet"), cwd=ROOT, check=True)
    assert compared(out) == compared(tmp_path / "whole")
    assert figures(out) == figures(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_cell_that_kills_its_workers_is_listed_with_its_cause_and_mended_by_resume(tmp_path):
    script, out = write(tmp_path, seeds=1, own=True), tmp_path / "out"
    (tmp_path / "mood").write_text("die")
    failed = subprocess.run(command(script, out), cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 2
    assert "died twice" in failed.stderr
    results = json.loads((out / "results.json").read_text())
    assert {cell["status"] for cell in results["cells"]} == {"failed"}
    assert results["summary"] == []
    (tmp_path / "mood").unlink()
    subprocess.run(command(script, out, "--resume", "--quiet"), cwd=ROOT, check=True)
    held, document = rows(out), (out / "results.json").read_text()
    assert {status for _, status, *_ in held} == {"done"}
    (tmp_path / "mood").write_text("die")
    failed = subprocess.run(command(script, out), cwd=ROOT, capture_output=True, text=True)
    assert "the earlier run" in failed.stderr
    assert (rows(out), (out / "results.json").read_text()) == (held, document)
    (tmp_path / "mood").unlink()
    subprocess.run(command(script, out, "--quiet"), cwd=ROOT, check=True)
    assert {row[0] for row in rows(out)} == {row[0] for row in held}
    assert not set(rows(out)) & set(held), "the new run's workers are not those on record"


TWO_NODES = """
import sys, threading, time, sqlite3
from pathlib import Path
from ray.cluster_utils import Cluster
from fedsim.scripts import load_scenario
from fedsim.sweep import sweep

script, out, kill = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "kill"
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
other = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.2")  # a machine of its own, to whom the checkout goes

def end_a_node():
    while True:
        time.sleep(0.1)
        try:
            with sqlite3.connect(out / "results.sqlite") as held:
                nodes = {n for (n,) in held.execute("select node from cells")}
        except sqlite3.Error:
            continue
        if len(nodes) == 2:
            cluster.remove_node(other, allow_graceful=False)
            (out.parent / "ended").write_text("yes")
            return

if kill:
    threading.Thread(target=end_a_node, daemon=True).start()
result = sweep(load_scenario(script), out, address=cluster.address, namespace="review")
assert not result.problems, result.problems
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("fate", ["kill", "spare"])
def test_two_machines_share_the_cells_and_one_may_go(tmp_path, fate):
    script, out = write(tmp_path, seeds=5, own=True), tmp_path / "out"
    (tmp_path / "mood").write_text("0.05")
    driver = tmp_path / "driver.py"
    driver.write_text(TWO_NODES)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, str(driver), str(script), str(out), fate]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ended").exists() == (fate == "kill")
    assert len({node for _, _, node, *_ in rows(out)}) == 2, "one machine did nothing"
    (tmp_path / "mood").unlink()
    words = [sys.executable, "-m", "fedsim", "run", script, "--out", tmp_path / "one", "--quiet"]
    subprocess.run(words, cwd=ROOT, check=True)
    assert compared(out) == compared(tmp_path / "one")


PLACED = """
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
cluster.add_node(num_cpus=2, num_gpus=1, node_ip_address="127.0.0.2")
from fedsim.grids import GridError
from fedsim.grids.pool import Size
from fedsim.grids.ray import stream_on_ray

def where(number):
    import fedsim, ray
    context = ray.get_runtime_context()
    given = context.get_assigned_resources()
    return fedsim.__file__, context.namespace, ray.util.get_node_ip_address(), given.get("CPU"), given.get("GPU")

asked = {"address": cluster.address, "namespace": "review"}
for _, (source, namespace, node, cpus, gpus) in stream_on_ray(where, range(4), size=Size(2, 0.5), **asked):
    assert "working_dir_files" in source, f"{source} is not the checkout that was sent"
    assert (namespace, node, cpus, gpus) == ("review", "127.0.0.2", 2, 0.5)
try:
    list(stream_on_ray(where, range(1), size=Size(1, 2), **asked))
except GridError as refused:
    print(refused)
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_workers_are_placed_by_what_they_need_and_run_the_checkout_that_was_sent():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", PLACED]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "1 CPUs and 2 GPUs: no machine has so many; the largest has 2 CPUs and 1 GPUs" in done.stdout


def test_a_folder_has_one_writer_at_a_time(tmp_path):
    hold = f"from fedsim.store import exclusive\nfrom pathlib import Path\nwith exclusive(Path({str(tmp_path)!r})): "
    with subprocess.Popen(
        [sys.executable, "-c", hold + "print('held', flush=True); input()"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="another run is writing there"), exclusive(tmp_path):
            pass
        other.kill()
    with exclusive(tmp_path):
        pass


def test_a_database_that_is_not_this_sweeps_is_refused(tmp_path):
    path = tmp_path / "results.sqlite"
    Database(path, "digest", "name").close()
    Database(path, "digest", "name").close()
    with pytest.raises(StoreError, match="holds another sweep"):
        Database(path, "other", "name")
    with sqlite3.connect(path) as database:
        database.execute("pragma user_version = 7")
    with pytest.raises(StoreError, match=r"schema 7, this is 1.*--resume"):
        Database(path, "digest", "name")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StoreError, match=r"cannot be used.*--resume"):
        Database(path, "digest", "name")
