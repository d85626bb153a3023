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

NOT_SENT = [".?*", "/build", "/dist", "/site", "/runs"]
"""What other machines need none of, as patterns of .gitignore: what is hidden (caches, the environment, the history)
and what was built. The pattern ``.*`` alone would match the checkout itself."""


def connect(address: str | None = None, namespace: str | None = None) -> None:
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
    _init(address, namespace=namespace)
    here = ray.util.get_node_ip_address()
    if address != LOCAL and any(node["Alive"] and node["NodeManagerAddress"] != here for node in ray.nodes()):
        ray.shutdown()
        checkout = {"working_dir": str(Path(__file__).parents[2]), "excludes": NOT_SENT}
        _init(address, namespace=namespace, runtime_env=checkout)


def largest_fit(cpus: float, gpus: float = 0) -> int:
    """How many workers of ``cpus`` CPUs and ``gpus`` GPUs each fit the connected cluster when it is idle."""
    offers = [(n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0)) for n in ray.nodes() if n["Alive"]]
    fit = sum(int(min(offer[0] / cpus, offer[1] / gpus if gpus else offer[0] / cpus)) for offer in offers)
    if fit == 0:
        asked = f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        largest = ", ".join(f"{offer[0]:g} CPUs and {offer[1]:g} GPUs" for offer in sorted(offers)[-1:]) or "nothing"
        raise GridError(f"a worker of {asked}: no machine has so many; the largest has {largest}; ask for less")
    return fit


def _init(address: str, **options: Any) -> None:
    if address == LOCAL:
        options |= {"include_dashboard": False}
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:
        says = " ".join(str(error).split())
        remedy = "check the address, and that the cluster runs this Python and this Ray"
        raise GridError(f"address = {address!r}: Ray cannot be used: {says}; {remedy}") from error


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
