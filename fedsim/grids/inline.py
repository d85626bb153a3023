"""The engine without start-up: clients one after another in this process."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flwr.clientapp import ClientApp

from fedsim.grids.base import Done, LocalGrid, Work, answer, load_client_app, one_thread


class InlineGrid(LocalGrid):
    """Runs every client where the server runs, on copies of its messages, with one thread."""

    def __init__(self, client_app: str | ClientApp, num_clients: int, run_config: Mapping[str, Any]) -> None:
        super().__init__(client_app, num_clients, run_config)
        self._app = load_client_app(client_app)

    def _exchange(self, work: Sequence[Work], timeout: float | None) -> Iterator[Done]:
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        with one_thread():
            for item in work:
                if time.monotonic() >= deadline:
                    return
                yield answer(self._app, item)
