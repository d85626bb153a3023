"""An oracle that asks a service over HTTP: attacks run on it unchanged."""

import re
from typing import Any, NoReturn

import httpx
from safetensors.torch import load, save
from torch import Tensor, nn

from attacks import AccessDenied, Oracle, OracleError, QueryBudgetExceeded, UnknownCaller
from fedsim.callers import RateLimited, unknown

ERRORS = {error.__name__: error for error in (AccessDenied, QueryBudgetExceeded, RateLimited)}
_SENDABLE = re.compile(r"[!-~]+")
"""What a key is made of."""


class RemoteOracle(Oracle):
    """``http`` reaches the service; ``key`` says who asks. Every refusal raises the service's own typed error.

    A caller in a white-box role gives the ``architecture``, into which it loads the weights that it is sent.
    """

    def __init__(self, http: httpx.Client, key: str, *, architecture: nn.Module | None = None) -> None:
        if not _SENDABLE.fullmatch(key):
            raise unknown(key)  # no header can carry it, so no service can know it
        self._http, self._headers = http, {"authorization": f"Bearer {key}"}
        about = _checked(http.get("/about", headers=self._headers)).json()
        fixed: dict[str, Any] = {"num_classes": about["num_classes"], "access": about["access"]}
        if about["access"] == "white_box":
            if architecture is None:
                raise ValueError("architecture = None: a white-box caller is sent weights; give the model they are of")
            architecture.load_state_dict(load(_checked(http.get("/model", headers=self._headers)).content))
            super().__init__(architecture, **fixed)
        else:
            super().__init__(_unasked, **fixed, budget=about["left"])

    def confidences(self, inputs: Tensor) -> Tensor:
        """As the service answers them; raises what it refuses with."""
        return self._post("confidences", inputs)

    def labels(self, inputs: Tensor) -> Tensor:
        """As the service answers them; raises what it refuses with."""
        return self._post("labels", inputs)

    def _post(self, what: str, inputs: Tensor) -> Tensor:
        body = save({"inputs": inputs.detach().cpu().contiguous()})
        try:
            reply = _checked(self._http.post(f"/{what}", content=body, headers=self._headers))
        except OracleError:
            self.refused += len(inputs)
            raise
        self.queries += len(inputs)
        return load(reply.content)[what].to(inputs.device)


def _unasked(inputs: Tensor) -> NoReturn:
    raise TypeError("the service holds the model, not this oracle")


def _checked(reply: httpx.Response) -> httpx.Response:
    """The reply, if it is an answer; else the error that the service names."""
    if reply.is_success:
        return reply
    told = reply.json() if "json" in reply.headers.get("content-type", "") else {}
    if told.get("error") == "UnknownCaller":
        raise UnknownCaller(str(told["fields"][0]))
    if error := ERRORS.get(str(told.get("error"))):
        raise error(*told["fields"])
    raise httpx.HTTPStatusError(f"{reply.status_code}: {told.get('says')}", request=reply.request, response=reply)
