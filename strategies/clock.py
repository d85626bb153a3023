"""CPU seconds of a protocol's stages, on clients and on the server: the experimenter's figures, in no message."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from flwr.app import Context, Message, MetricRecord

CPU, ROUND = "cpu_seconds", "round"
"""The record of ``Context.state`` with a client's CPU seconds by stage, and its entry that names their round."""


class Clock:
    """CPU seconds of the calling thread, by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count what the body takes, however it ends."""
        started = time.thread_time()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.thread_time() - started


@contextmanager
def timed(context: Context, message: Message, stage: str) -> Iterator[None]:
    """Count what the body takes a client in the round of ``message``; a new round begins afresh."""
    clock = Clock()
    try:
        with clock.timed(stage):
            yield
    finally:
        round = round_of(message)
        held = context.state.metric_records.get(CPU, MetricRecord())
        if held.get(ROUND) != round:
            held = MetricRecord({ROUND: round})
        held[stage] = cast(float, held.get(stage, 0.0)) + clock.seconds[stage]
        context.state[CPU] = held


def round_of(message: Message) -> int:
    """The round that an instruction belongs to."""
    return cast(int, message.content.config_records["config"]["round"])
