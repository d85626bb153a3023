"""Driver CPU per client and round: RayGrid beside a bare Ray actor pool that does the same work.

    python -m tests.benchmarks.ray_overhead

Both train the same convolutional network (9,000 parameters) for one step on 64 images, from weights that are stored
once in Ray's object store, on as many actors as the machine has CPUs, and both end with the mean update as tensors.
The bare pool is ``ray.util.ActorPool``: one call a client, dictionaries of numpy arrays in and out. Rounds of the two
alternate; the first of each is left out; the figure is the median. The third column adds the recorder that makes the
server's view, which the bare pool has nothing like. At last, a second scenario in the same process is timed.
"""

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import ray
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from ray.util import ActorPool
from torch import Tensor, nn

from fedsim.grids import open_grid
from fedsim.seeds import torch_generator
from strategies.recorder import RecordingGrid

ROUNDS = 8
APP = "tests.benchmarks.ray_overhead:app"
app = ClientApp()


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 12), nn.ReLU(), nn.Linear(12, 10),
    )  # fmt: skip


def local_step(weights: Mapping[str, Tensor], client: int) -> dict[str, Tensor]:
    """The work: the change of the weights by one step on this client's 64 images."""
    model = network()
    model.load_state_dict(dict(weights))
    generator = torch_generator(0, "client", client)
    images = torch.rand(64, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (64,), generator=generator)
    gradients = torch.autograd.grad(nn.functional.cross_entropy(model(images), labels), list(model.parameters()))
    return {name: -0.1 * g for (name, _), g in zip(model.named_parameters(), gradients, strict=True)}


@app.train()
def train(message: Message, context: object) -> Message:
    client = int(context.node_config["partition-id"])
    update = local_step(message.content["arrays"].to_torch_state_dict(), client)
    content = {"update": ArrayRecord(update), "metrics": MetricRecord({"num-examples": 64, "loss": 0.5})}
    return Message(RecordDict(content), reply_to=message)


@ray.remote
class Bare:
    def __init__(self) -> None:
        torch.set_num_threads(1)

    def train(self, weights: Mapping[str, np.ndarray], config: dict, client: int) -> tuple[dict, dict]:
        update = local_step({name: torch.from_numpy(w.copy()) for name, w in weights.items()}, client)
        return {name: t.numpy() for name, t in update.items()}, {"num-examples": 64, "loss": 0.5, "client": client}


def mean(updates: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([u[name] for u in updates]).mean(0) for name in updates[0]}


def bare_round(pool: ActorPool, weights: Mapping[str, Tensor], clients: int) -> dict[str, Tensor]:
    stored = ray.put({name: w.numpy() for name, w in weights.items()})
    config = {"round": 1, "update_kind": "delta"}
    answers = list(pool.map_unordered(lambda actor, c: actor.train.remote(stored, config, c), range(clients)))
    answers.sort(key=lambda answer: answer[1]["client"])
    return mean([{name: torch.from_numpy(a.copy()) for name, a in update.items()} for update, _ in answers])


def grid_round(grid: Grid, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    arrays = ArrayRecord(dict(weights))
    messages = [
        Message(
            RecordDict({"arrays": arrays, "config": ConfigRecord({"round": 1, "update_kind": "delta"})}), node, "train"
        )
        for node in grid.get_node_ids()
    ]
    replies = grid.send_and_receive(messages)
    return mean([reply.content["update"].to_torch_state_dict() for reply in replies])


def cpu_and_wall(work: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    torch.set_num_threads(1)
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = {name: t.detach() for name, t in network().state_dict().items()}
    grid_round(open_grid("ray", APP, 4, {}), weights)
    print(f"first scenario, Ray and its workers started: first round ends after {time.perf_counter() - start:.1f} s")
    # Without CPUs of their own in Ray's books, so that both pools can exist; only one of them works at a time.
    pool = ActorPool([Bare.options(num_cpus=0).remote() for _ in range(int(ray.cluster_resources()["CPU"]))])
    print(f"{'clients':>8} {'pool':>22} {'driver CPU ms/client':>21} {'round wall s':>13} {'times bare':>11}")
    for clients in (100, 500):
        grid = open_grid("ray", APP, clients, {})
        assert all(torch.equal(a, b) for a, b in zip(
            bare_round(pool, weights, clients).values(), grid_round(grid, weights).values(), strict=True
        ))  # fmt: skip
        kinds = {
            "bare ActorPool": lambda: bare_round(pool, weights, clients),  # noqa: B023  called in this iteration
            "RayGrid": lambda: grid_round(grid, weights),  # noqa: B023
            "RayGrid and recorder": lambda: grid_round(RecordingGrid(grid), weights),  # noqa: B023
        }
        taken = {name: [] for name in kinds}
        for _ in range(ROUNDS):
            for name, work in kinds.items():
                taken[name].append(cpu_and_wall(work))
        cpu = {name: statistics.median(t[0] for t in times) * 1000 / clients for name, times in taken.items()}
        for name, times in taken.items():
            wall = statistics.median(t[1] for t in times)
            ratio = cpu[name] / cpu["bare ActorPool"]
            print(f"{clients:>8} {name:>22} {cpu[name]:>21.2f} {wall:>13.2f} {ratio:>11.2f}")
    _, wall = cpu_and_wall(lambda: grid_round(open_grid("ray", APP, 10, {"scenario": "another"}), weights))
    print(f"second scenario in the same process: first round ends after {wall:.2f} s")


if __name__ == "__main__":
    main()
