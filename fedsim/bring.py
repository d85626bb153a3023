"""Bring your own Flower app: run it as it is, and hold what its server saw."""

from collections.abc import Mapping
from typing import Any

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import ServerApp

from fedsim.grids import open_grid
from fedsim.grids.base import RUN_ID
from strategies.recorder import RecordingGrid


def record_app(
    server_app: ServerApp,
    client_app: str | ClientApp,
    *,
    num_clients: int,
    run_config: Mapping[str, Any] | None = None,
    engine: str = "inline",
    address: str | None = None,
) -> RecordingGrid:
    """Run a ServerApp and a ClientApp unchanged; ``.view(model)`` on the result is the server's view of the run.

    Both apps get ``run_config`` as ``context.run_config``; client ``p`` of ``n`` finds ``partition-id`` p and
    ``num-partitions`` n in ``context.node_config``, as under ``flwr run``. What the ServerApp raises is raised here.

    Raises GridError where the engine cannot start.
    """
    config = dict(run_config or {})
    recorder = RecordingGrid(open_grid(engine, client_app, num_clients, config, address=address))
    server_app(recorder, Context(RUN_ID, SUPERLINK_NODE_ID, {}, RecordDict(), config))
    return recorder
