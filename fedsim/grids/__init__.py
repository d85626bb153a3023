"""Engines: where the clients of a federation, and the attacks on them, run."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from flwr.clientapp import ClientApp

from fedsim.grids.base import GridError, LocalGrid, one_thread
from fedsim.grids.inline import InlineGrid

__all__ = ["ENGINES", "GridError", "InlineGrid", "LocalGrid", "map_tasks", "one_thread", "open_grid"]

ENGINES = ("inline", "ray")

Item = TypeVar("Item")
Result = TypeVar("Result")


def open_grid(
    engine: str,
    client_app: str | ClientApp,
    num_clients: int,
    run_config: Mapping[str, Any],
    *,
    address: str | None = None,
    cpus_per_client: float = 1,
) -> LocalGrid:
    """A grid of clients on ``engine``; ``address`` and ``cpus_per_client`` concern ``ray`` alone.

    Raises GridError for an unknown engine, an app that cannot be imported, or a cluster that does not answer.
    """
    _check(engine, address)
    if engine == "inline":
        return InlineGrid(client_app, num_clients, run_config)
    from fedsim.grids.ray import RayGrid  # Ray takes a second to import

    return RayGrid(client_app, num_clients, run_config, address=address, cpus_per_client=cpus_per_client)


def map_tasks(
    engine: str,
    fn: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    address: str | None = None,
    on_done: Callable[[int, Result], None] = lambda index, result: None,
) -> list[Result]:
    """``[fn(item) for item in items]`` with one thread each, the same numbers on every engine.

    ``on_done(index, result)`` is called as results arrive, in any order. What ``fn`` raises is raised here. On
    ``ray``, ``fn`` and the items are pickled.
    """
    _check(engine, address)
    if engine == "ray":
        from fedsim.grids.ray import map_on_ray

        return map_on_ray(fn, items, address=address, on_done=on_done)
    results: list[Result] = []
    for index, item in enumerate(items):
        with one_thread():
            results.append(fn(item))
        on_done(index, results[-1])
    return results


def _check(engine: str, address: str | None) -> None:
    if engine not in ENGINES:
        raise GridError(f"engine = {engine!r}: must be one of {', '.join(ENGINES)}")
    if address is not None and engine != "ray":
        raise GridError(f"address = {address!r}: engine {engine!r} joins no cluster; use engine 'ray' or leave it out")
