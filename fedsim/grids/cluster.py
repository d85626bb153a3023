"""Ray, started quietly on this machine or joined by address."""

import logging
import os
from pathlib import Path
from typing import Any

import grpc
import ray

from fedsim.grids.base import GridError

ANSWER_SECONDS = 10
"""How long a cluster may take to say that it is alive. Ray itself would try for minutes, then end the process."""

LOCAL = "local"


def connect(address: str | None = None) -> None:
    """Connect this process to the cluster at ``address`` (``host:port``, or ``auto`` for one on this machine).

    None means the environment's RAY_ADDRESS, or else a Ray of this process's own, without dashboard or usage
    statistics, that ends with it. Where machines other than this one belong to the cluster, the checkout is sent to
    them; what it needs must be installed there.

    Raises GridError where the address does not answer as a Ray cluster.
    """
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    if address.startswith("ray://"):
        raise GridError(f"address = {address!r}: Ray Client is not supported; give the head node's host:6379")
    if address not in (LOCAL, "auto"):
        _check_alive(address)
    _init(address)
    here = ray.util.get_node_ip_address()
    if address != LOCAL and any(node["Alive"] and node["NodeManagerAddress"] != here for node in ray.nodes()):
        ray.shutdown()
        _init(address, runtime_env={"working_dir": str(Path(__file__).parents[2]), "excludes": [".git", ".venv"]})


def largest_fit(cpus: float) -> int:
    """How many workers of ``cpus`` CPUs each fit the connected cluster when it is idle."""
    offers = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    fit = sum(int(offer / cpus) for offer in offers)
    if fit == 0:
        raise GridError(f"cpus_per_client = {cpus:g}: no machine has so many CPUs; the largest has {max(offers):g}")
    return fit


def _init(address: str, **options: Any) -> None:
    if address == LOCAL:
        options |= {"include_dashboard": False}
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:
        raise GridError(f"address = {address!r}: Ray cannot be used: {' '.join(str(error).split())}") from error


def _check_alive(address: str) -> None:
    """Ask the cluster's head whether it is alive; Ray's reply holds its version."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            silent = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED
            if error.code() in silent:  # any other refusal is a Ray that will say itself what is wrong
                raise GridError(
                    f"address = {address!r}: no Ray cluster answers there; start one with `ray start --head`, "
                    "or leave the address out to start a local one"
                ) from error
