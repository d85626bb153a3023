"""Somebody else's Flower app: recorded as it is, on our engines; and ours on somebody else's, ``flwr run``."""

import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fedsim import Adversary, Attack, Federation, Homomorphic, Scenario, Task
from fedsim.apps import client_app as our_client_app
from fedsim.apps import server_app as our_server_app
from fedsim.bring import record_app
from fedsim.experiment import Experiment
from fedsim.grids import GridError
from fedsim.store import RunFolder, load_training, load_view

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "scenarios" / "own_flower_app.py"
CLIENTS = 4


def moved(state, client, round):
    return {name: tensor * 0.5 + client + round for name, tensor in state.items()}


@pytest.fixture
def apps():
    """An app with a strategy of Flower's, and what its server ended with."""
    client_app, server_app, ended = ClientApp(), ServerApp(), {}

    @client_app.train()
    def train(message, context):
        round = message.content["config"]["server-round"]
        client = context.node_config["partition-id"]
        arrays = ArrayRecord(moved(message.content["arrays"].to_torch_state_dict(), client, round))
        metrics = MetricRecord({"num-examples": 10 + client})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    @client_app.evaluate()
    def evaluate(message, context):
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "accuracy": 0.5})}), reply_to=message)

    @server_app.main()
    def main(grid, context):
        first = ArrayRecord({"weight": torch.ones(2, 3), "bias": torch.zeros(2)})
        result = FedAvg().start(grid, initial_arrays=first, num_rounds=context.run_config["rounds"])
        ended["arrays"] = result.arrays.to_torch_state_dict()

    return server_app, client_app, ended


@pytest.mark.parametrize(
    "engine", ["inline", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.xdist_group("ray")])]
)
def test_the_view_holds_what_each_client_of_an_unknown_app_sent(apps, engine):
    server_app, client_app, ended = apps
    recorder = record_app(server_app, client_app, num_clients=CLIENTS, run_config={"rounds": 2}, engine=engine)
    view = recorder.view(nn.Linear(3, 2))
    assert [(u.round, u.client) for u in view.updates] == [(r, c) for r in (1, 2) for c in range(CLIENTS)]
    state = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    for round in (1, 2):
        sent = [moved(state, client, round) for client in range(CLIENTS)]
        for client, observation in enumerate(view.observations(round=round)):
            for name, tensor in state.items():
                assert torch.equal(observation.model.state_dict()[name], tensor)
                assert torch.equal(observation.update[name], sent[client][name] - tensor)
            assert observation.side == {"num-examples": 10.0 + client}
        weights = torch.arange(CLIENTS) + 10.0
        state = {
            name: (torch.stack([s[name] for s in sent]) * weights.view(-1, *[1] * tensor.dim())).sum(0) / weights.sum()
            for name, tensor in state.items()
        }
        # Where Flower's own mean goes on from, as it was broadcast.
        state = {name: _broadcast_near(view, name, tensor) for name, tensor in state.items()}
    assert {m.stage for m in view.messages} == {"train", "evaluate"}
    assert set(ended["arrays"]) == {"weight", "bias"}


def _broadcast_near(view, name, expected):
    near = [s[name] for s in view.broadcasts.values() if torch.allclose(s[name], expected, rtol=1e-5)]
    assert near
    return near[0]


def test_what_the_server_app_raises_comes_out(apps):
    _, client_app, _ = apps
    server_app = ServerApp()

    @server_app.main()
    def main(grid, context):
        raise KeyError("no such strategy")

    with pytest.raises(KeyError, match="no such strategy"):
        record_app(server_app, client_app, num_clients=CLIENTS)
    with pytest.raises(GridError, match="num_clients = 0"):
        record_app(server_app, client_app, num_clients=0)


def test_the_example_rebuilds_its_clients_images(capsys):
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    rows = [line for line in capsys.readouterr().out.splitlines() if re.match(r" +\d+ +\d+ ", line)]
    figures = [float(f) for row in rows for f in re.findall(r"(-?\d+\.\d) \(", row)]
    baselines = [float(f) for row in rows for f in re.findall(r"\( ?(\d+\.\d)\)", row)]
    assert len(rows) == 10
    assert len(baselines) == 40
    assert max(baselines) < 20
    # The app draws its weights unseeded: now and then an image has no row of its own, and is missed.
    assert sum(figure > 60 for figure in figures) >= 32


SCENARIO = Scenario(
    name="under-flwr-run",
    task=Task(dataset="digits", model="mlp"),
    federation=Federation(algorithm="fedavg", clients=3, rounds=2, batch_size=4, examples_per_client=12),
    adversary=Adversary(knows=["batch_size"]),
    attacks=[Attack(name="label_counts", rounds=(1, 2))],
    seeds=[3],
)


@pytest.fixture
def superlink(tmp_path):
    """The environment of a SuperLink of this test's own, which ends with the test."""
    with socket.socket() as http, socket.socket() as control:
        http.bind(("127.0.0.1", 0))
        control.bind(("127.0.0.1", 0))
        ports = [str(s.getsockname()[1]) for s in (http, control)]
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": ports[0],
        "FLWR_LOCAL_CONTROL_API_PORT": ports[1],
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_ADDRESS": "local",  # else Ray waits for the cluster that `ray start` last wrote down, dead or alive
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    # What `flwr run .` would start, detached and for good, if it found none.
    command = [programs / "flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
    command += ["--host", "127.0.0.1", "--port", ports[0], "--control-api-address", f"127.0.0.1:{ports[1]}"]
    command += ["--database", tmp_path / "state.db", "--log-file", tmp_path / "superlink.log"]
    daemon = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{ports[0]}/health", daemon)
        yield environment
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


def _wait_until_healthy(url, daemon):
    for _ in range(240):
        assert daemon.poll() is None
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    pytest.fail("the SuperLink did not start")


def flwr_run(scenario, superlink, tmp_path):
    """The folder that ``flwr run .`` leaves, and how it ended."""
    out = tmp_path / "out"
    config = {"scenario": scenario.model_dump_json(), "out": str(out)}
    (tmp_path / "run.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items()))
    ran = subprocess.run(
        [
            *("flwr", "run", ".", "--stream", "--run-config", tmp_path / "run.toml"),
            *("--federation-config", "num-supernodes=3 client-resources-num-cpus=1"),
        ],
        cwd=ROOT,
        env=superlink,
        capture_output=True,
        text=True,
        timeout=900,
    )
    return out, ran


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(1000)
def test_flwr_run_gives_the_view_that_inline_gives(superlink, tmp_path):
    out, ran = flwr_run(SCENARIO, superlink, tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    experiment = Experiment(SCENARIO)
    assert RunFolder.scenario_of(out) == SCENARIO, ran.stdout
    theirs = load_view(RunFolder(out).cell(SCENARIO.digest), experiment.initial_model())
    recorder = record_app(
        our_server_app,
        our_client_app,
        num_clients=3,
        run_config={"scenario": SCENARIO.model_dump_json(), "out": ""},
    )
    ours = recorder.view(experiment.initial_model())
    assert [(u.round, u.client, u.kind) for u in theirs.updates] == [
        (round, client, "delta") for round in (1, 2) for client in range(3)
    ]
    for a, b in zip(ours.updates, theirs.updates, strict=True):
        assert (a.round, a.client, a.side.keys()) == (b.round, b.client, b.side.keys())
        for name in a.arrays:
            assert torch.allclose(a.arrays[name], b.arrays[name], rtol=1e-6, atol=1e-9)
    # The outer recorder also sees the app's roll call, which is the simulator's and not the server's.
    training = [m for m in ours.messages if m.stage == "train"]
    assert [(m.round, m.client, m.direction, m.stage, m.bytes) for m in training] == [
        (m.round, m.client, m.direction, m.stage, m.bytes) for m in theirs.messages
    ]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("keys", ["clients_share_key", "trusted_decryptor"])
def test_flwr_run_encrypts_and_reaches_the_plaintext_model(superlink, tmp_path, keys):
    protocol = [Homomorphic(keys=keys, max_weight=12)]
    out, ran = flwr_run(Scenario(**{**dict(SCENARIO), "protocol": protocol}), superlink, tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    scenario = RunFolder.scenario_of(out)
    place, first = RunFolder(out).cell(scenario.digest), Experiment(scenario).initial_model()
    view = load_view(place, first)
    assert {m.form for m in view.messages if m.direction == "received"} == {"ciphertext"}
    assert [(u.round, u.client) for u in view.updates] == (
        [] if keys == "clients_share_key" else [(1, None), (2, None)]
    )
    record_app(
        our_server_app,
        our_client_app,
        num_clients=3,
        run_config={"scenario": SCENARIO.model_dump_json(), "out": str(tmp_path / "plain")},
    )
    plain = load_training(RunFolder(tmp_path / "plain").cell(SCENARIO.digest)).state
    theirs = load_training(place).state
    assert max(float((plain[name] - theirs[name]).abs().max()) for name in plain) < 1e-6
