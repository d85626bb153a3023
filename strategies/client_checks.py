"""Checks of the model that a client was sent, as a defence: a client that finds one suspicious does not answer."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from attacks.detect import SIGNALS, Finding, disagreement
from strategies.base import ClientContext, Defence, Stage, Update
from strategies.wire import digest
from strategies.wrapped import WrappedGrid

BOARD = "board"
"""The record that holds the digests of the models that the clients of a round were sent."""


@dataclass(frozen=True)
class ClientChecks(Defence):
    """Refuses a model by what ``attacks.detect`` finds in it; None leaves a signal out.

    ``consistency`` compares model digests with all other clients of the round, over a board that the server cannot
    write to. Thresholds are parts of a layer's rows, but for ``gradient_snr``. None of it changes an update.
    """

    kind: Literal["client_checks"] = "client_checks"
    consistency: bool = True
    architecture: bool = True
    """Refuse parameters that the agreed model does not have."""
    parallel_rows: float | None = SIGNALS["parallel_rows"][0]
    dead_rows: float | None = SIGNALS["dead_rows"][0]
    scarce_rows: float | None = SIGNALS["scarce_rows"][0]
    gradient_snr: float | None = SIGNALS["gradient_snr"][0]
    examples: int = 16
    """How many of its own examples a client tries the model on."""

    stage: ClassVar[Stage] = Stage.CHECK
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def problems(self) -> list[str]:
        """Every invalid field."""
        found = [
            f"{name} = {limit}: must be positive and finite; None leaves this check out"
            for name in SIGNALS
            if (limit := getattr(self, name)) is not None and not 0 < limit < math.inf
        ]
        if self.examples < 2:
            found.append(f"examples = {self.examples}: the checks compare examples; give at least 2")
        return found

    def describe(self) -> str:
        """In words."""
        looked = [name.replace("_", " ") for name in SIGNALS if getattr(self, name) is not None]
        looked = ["architecture"] * self.architecture + looked
        agreed = ["with the other clients that all were sent the same model"] if self.consistency else []
        own = [f"the model that it was sent ({', '.join(looked)})"] if looked else []
        return f"it checks {' and '.join([*own, *agreed]) or 'nothing'}, and else does not answer"

    def protect(self, update: Update, context: ClientContext) -> Update:
        """The update as it is."""
        return update

    def refusal(self, findings: Sequence[Finding]) -> Finding | None:
        """The first finding for which this client does not answer."""
        return next((finding for finding in findings if self._refuses(finding)), None)

    def _refuses(self, finding: Finding) -> bool:
        if finding.signal in SIGNALS:
            limit = getattr(self, finding.signal)
            return limit is not None and dataclasses.replace(finding, threshold=limit).suspicious
        return finding.suspicious and (self.architecture if finding.signal == "architecture" else self.consistency)


class BulletinBoard(WrappedGrid):
    """Tells every client the digests of the models that all clients of the exchange were sent.

    An ideal functionality: it stands for digests that clients sign and exchange past the server (Pasquini et al.
    2022, section 6), and proves nothing about how they do it.
    """

    def __init__(self, inner: Grid, clients: Mapping[int, int]) -> None:
        """``clients`` numbers the nodes."""
        super().__init__(inner)
        self.clients = clients

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Pass through, each message that holds a model with the board beside it."""
        messages = list(messages)
        carrying = [message for message in messages if "arrays" in message.content.array_records]
        posted = [digest(message.content.array_records["arrays"]) for message in carrying]
        clients = [self.clients[message.metadata.dst_node_id] for message in carrying]
        for message in carrying:
            message.content[BOARD] = ConfigRecord({"clients": clients, "digests": posted})
        return self.inner.send_and_receive(messages, timeout=timeout)


def agreement(message: Message, client: int) -> Finding | None:
    """Whether all clients on the board were sent the model that this ``client`` was; None without a board."""
    board = message.content.config_records.get(BOARD)
    if board is None:
        return None
    posted = dict(zip(cast(list[int], board["clients"]), cast(list[str], board["digests"]), strict=True))
    posted[client] = digest(message.content.array_records["arrays"])
    return disagreement(posted)
