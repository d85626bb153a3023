"""The trained model as an HTTP service: who calls is known by key, and gets what its role is answered, and no more."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from safetensors.torch import load, save
from torch import Tensor, nn

from attacks import AccessDenied, Oracle, OracleError, QueryBudgetExceeded, UnknownCaller
from attacks.monitor import QueryLog
from fedsim.callers import Callers, Pace, RateLimited, as_fields
from fedsim.query_log import QueryFile, digests, entries, margins
from fedsim.seeds import torch_generator

STATUS: dict[type[OracleError], int] = {
    UnknownCaller: 401,
    AccessDenied: 403,
    QueryBudgetExceeded: 429,
    RateLimited: 429,
}
LARGEST = 64 * 2**20
"""Bytes of a request."""


class Unreadable(ValueError):
    """A request whose body is no batch of inputs for this model."""


class Desk:
    """One caller's place at the service: its oracle, with the budget that is left, and its pace."""

    def __init__(self, model: nn.Module, num_classes: int, callers: Callers, name: str, spent: int, seed: int) -> None:
        role = callers.roles[callers.callers[name].role]
        self.name, self.pace, self.log = name, Pace(role.per_minute), QueryLog()
        self.oracle: Oracle = role.deployment.open(model, num_classes, torch_generator(seed, "desk", name), self.log)
        self.oracle.queries = spent

    def about(self) -> dict[str, Any]:
        """What the caller may know of its own access."""
        oracle = self.oracle
        return {"access": oracle.access, "num_classes": oracle.num_classes, "left": oracle.left}


def application(
    model: nn.Module,
    *,
    input_shape: tuple[int, ...],
    num_classes: int,
    callers: Callers,
    log: Path,
    seed: int = 0,
    clock: Callable[[], float] = time.time,
) -> FastAPI:
    """The service around ``model``; ``seed`` is that of the controls' noise. Budgets go on where the log ended.

    Bodies are safetensors: a request holds ``inputs`` (N, *input_shape), an answer ``confidences`` (N, K) or
    ``labels`` (N,). Refusals are JSON that names the error. Raises LogBroken for a log that was tampered with.
    """
    file, spent = QueryFile(log), dict[str, int]()
    for entry in entries(log):
        spent[entry["caller"]] = spent.get(entry["caller"], 0) + (0 if entry["error"] else entry["inputs"])
    desks = {n: Desk(model.eval(), num_classes, callers, n, spent.get(n, 0), seed) for n in callers.callers}
    app = FastAPI(title="fedsim: a trained model, as deployed", docs_url=None, redoc_url=None, openapi_url=None)

    def desk_of(request: Request) -> Desk:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return desks[callers.known_by(key if scheme.lower() == "bearer" else "")]

    def note(caller: str, asked: str, inputs: int, seen: QueryLog | None = None, error: str | None = None) -> None:
        kept = seen is not None and bool(seen.inputs)
        file.append(
            {
                "time": clock(),
                "caller": caller,
                "asked": asked,
                "inputs": inputs,
                "error": error,
                "digests": digests(torch.cat(seen.inputs)) if seen and kept else [],
                "margins": margins(torch.cat(seen.confidences)) if seen and kept else [],
            }
        )

    async def answered(request: Request, asked: str, ask: Callable[[Oracle, Tensor], Tensor]) -> Response:
        desk = desk_of(request)
        inputs = _inputs(await request.body(), input_shape)
        desk.log.inputs.clear()
        desk.log.confidences.clear()
        try:
            desk.pace.admit(len(inputs), clock())
            answer = ask(desk.oracle, inputs)
        except OracleError as refused:
            note(desk.name, asked, len(inputs), error=type(refused).__name__)
            raise
        note(desk.name, asked, len(inputs), desk.log)
        return Response(save({asked: answer.contiguous()}), media_type="application/octet-stream")

    @app.exception_handler(OracleError)
    async def refuse(request: Request, error: OracleError) -> JSONResponse:
        if isinstance(error, UnknownCaller):
            note("unknown", request.url.path.strip("/"), 0, error=type(error).__name__)
        return JSONResponse(as_fields(error), STATUS.get(type(error), 400))

    @app.exception_handler(Unreadable)
    async def bad_input(request: Request, error: Unreadable) -> JSONResponse:
        return JSONResponse({"error": "Unreadable", "fields": [], "says": str(error)}, 422)

    @app.get("/about")
    async def about(request: Request) -> dict[str, Any]:
        return desk_of(request).about()

    @app.get("/model")
    async def weights(request: Request) -> Response:
        desk = desk_of(request)
        state = {name: tensor.contiguous() for name, tensor in desk.oracle.model.state_dict().items()}
        note(desk.name, "model", 0)
        return Response(save(state), media_type="application/octet-stream")

    @app.post("/confidences")
    async def confidences(request: Request) -> Response:
        return await answered(request, "confidences", lambda oracle, inputs: oracle.confidences(inputs))

    @app.post("/labels")
    async def labels(request: Request) -> Response:
        return await answered(request, "labels", lambda oracle, inputs: oracle.labels(inputs))

    return app


def _inputs(body: bytes, shape: tuple[int, ...]) -> Tensor:
    if len(body) > LARGEST:
        raise Unreadable(f"{len(body):,} bytes; send at most {LARGEST:,} at once")
    try:
        inputs = load(body)["inputs"]
    except Exception:  # whatever a stranger sends
        raise Unreadable("the body is no safetensors file with an entry 'inputs'") from None
    if tuple(inputs.shape[1:]) != shape or not len(inputs) or not torch.isfinite(inputs).all():
        raise Unreadable(f"inputs of shape {tuple(inputs.shape)}: need one or more finite ones of shape {shape}")
    return inputs
