"""The trained model as an HTTP service: who calls is known by key, and gets what its role is answered, and no more."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
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
LONGEST = 200
"""Characters of what a stranger may make as long as it likes, a path or a shape, that the log keeps."""


class Unreadable(ValueError):
    """A request whose body is no batch of inputs for this model."""


class Desk:
    """One caller's place at the service: its oracle, with the budget that is left, and its pace."""

    def __init__(self, model: nn.Module, num_classes: int, callers: Callers, name: str, seed: int) -> None:
        role = callers.roles[callers.callers[name].role]
        self.name, self.pace, self.log = name, Pace(role.per_minute), QueryLog()
        self.oracle: Oracle = role.deployment.open(model, num_classes, torch_generator(seed, "desk", name), self.log)

    def recall(self, answered: int, when: float) -> None:
        """Take in what was answered before a restart."""
        self.oracle.queries += answered
        self.pace.count(answered, when)

    def ask(self, inputs: Tensor, ask: Callable[[Oracle, Tensor], Tensor], now: float) -> Tensor:
        """The oracle's answer, counted once there is one; raises what the request is refused with."""
        self.log.inputs.clear()
        self.log.confidences.clear()
        if self.oracle.left is None or len(inputs) <= self.oracle.left:  # else the oracle refuses: no wait would help
            self.pace.admit(len(inputs), now)
        answer = ask(self.oracle, inputs)
        self.pace.count(len(inputs), now)
        return answer

    def about(self) -> dict[str, Any]:
        """What the caller may know of its own access."""
        oracle = self.oracle
        return {"access": oracle.access, "num_classes": oracle.num_classes, "left": oracle.left}


@dataclass
class Heard:
    """What the log keeps of one request, filled in while it is answered; ``error`` and ``reason`` where it is not."""

    time: float
    asked: str
    caller: str = "unknown"
    inputs: int = 0
    error: str | None = None
    reason: str | None = None
    digests: list[str] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)


def application(
    model: nn.Module,
    *,
    input_shape: tuple[int, ...],
    num_classes: int,
    callers: Callers,
    log: Path,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    clock: Callable[[], float] = time.time,
) -> FastAPI:
    """The service around ``model``; ``seed`` is that of the controls' noise. Budgets and paces go on where the log
    ended.

    Bodies are safetensors: a request holds ``inputs`` (N, *input_shape), cast to ``dtype``, an answer ``confidences``
    (N, K) or ``labels`` (N,). Refusals are JSON that names the error. Every request is one line of the log. Raises
    LogBroken for a log that was tampered with.
    """
    file = QueryFile(log)
    desks = {name: Desk(model.eval(), num_classes, callers, name, seed) for name in callers.callers}
    for entry in entries(log):
        if entry["caller"] in desks and not entry["error"]:
            desks[entry["caller"]].recall(entry["inputs"], entry["time"])
    app = FastAPI(title="fedsim: a trained model, as deployed", docs_url=None, redoc_url=None, openapi_url=None)

    def desk_of(request: Request) -> Desk:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        desk = desks[callers.known_by(key if scheme.lower() == "bearer" else "")]
        request.state.heard.caller = desk.name
        return desk

    @app.middleware("http")
    async def kept(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        """Log every request, whatever becomes of it, before its answer leaves."""
        heard = request.state.heard = Heard(clock(), request.url.path.strip("/")[:LONGEST])
        try:
            reply = await proceed(request)
        except Exception as broken:  # a model may fail on inputs in any way, and must not end the log
            logging.getLogger(__name__).exception("a request to %s failed", heard.asked)
            heard.error, heard.reason = type(broken).__name__, "the service failed"
            says = "the service failed on this request, which was not counted"
            reply = JSONResponse({"error": "Failed", "fields": [], "says": says}, 500)
        if reply.status_code >= 400 and heard.error is None:
            heard.error = HTTPStatus(reply.status_code).phrase
        file.append({**asdict(heard), "status": reply.status_code})
        return reply

    async def answered(request: Request, asked: str, ask: Callable[[Oracle, Tensor], Tensor]) -> Response:
        desk, heard = desk_of(request), request.state.heard
        inputs = _inputs(await request.body(), input_shape, dtype)
        heard.inputs = len(inputs)
        answer = desk.ask(inputs, ask, heard.time)
        if desk.log.inputs:
            heard.digests = digests(torch.cat(desk.log.inputs))
            heard.margins = margins(torch.cat(desk.log.confidences))
        return Response(save({asked: answer.contiguous()}), media_type="application/octet-stream")

    def refused(request: Request, error: Exception, told: dict[str, Any], status: int) -> JSONResponse:
        request.state.heard.error, request.state.heard.reason = type(error).__name__, str(error)[:LONGEST]
        return JSONResponse(told, status)

    @app.exception_handler(OracleError)
    async def refuse(request: Request, error: OracleError) -> JSONResponse:
        return refused(request, error, as_fields(error), STATUS.get(type(error), 400))

    @app.exception_handler(Unreadable)
    async def bad_input(request: Request, error: Unreadable) -> JSONResponse:
        return refused(request, error, {"error": "Unreadable", "fields": [], "says": str(error)}, 422)

    @app.get("/about")
    async def about(request: Request) -> dict[str, Any]:
        return desk_of(request).about()

    @app.get("/model")
    async def weights(request: Request) -> Response:
        state = {name: tensor.contiguous() for name, tensor in desk_of(request).oracle.model.state_dict().items()}
        return Response(save(state), media_type="application/octet-stream")

    @app.post("/confidences")
    async def confidences(request: Request) -> Response:
        return await answered(request, "confidences", lambda oracle, inputs: oracle.confidences(inputs))

    @app.post("/labels")
    async def labels(request: Request) -> Response:
        return await answered(request, "labels", lambda oracle, inputs: oracle.labels(inputs))

    return app


def _inputs(body: bytes, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if len(body) > LARGEST:
        raise Unreadable(f"{len(body):,} bytes; send at most {LARGEST:,} at once")
    try:
        inputs = load(body)["inputs"]
    except Exception:  # whatever a stranger sends
        raise Unreadable("the body is no safetensors file with an entry 'inputs'") from None
    if inputs.is_complex() or (inputs.is_floating_point() and not dtype.is_floating_point):
        raise Unreadable(f"inputs of {inputs.dtype}: need {dtype}, or what can be cast to it without loss of meaning")
    shaped = tuple(inputs.shape[1:]) == shape and len(inputs)
    if not shaped or not torch.isfinite(cast := inputs.to(dtype)).all():
        raise Unreadable(f"inputs of shape {tuple(inputs.shape)}: need one or more finite ones of shape {shape}")
    return cast
