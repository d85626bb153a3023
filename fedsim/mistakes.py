"""How a program ends where the user, or Ctrl-C, is the reason: in one line for each mistake, not in a traceback."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import NoReturn

BAD_INPUT = 2
INTERRUPTED = 130
"""Exit codes."""


def mendable(error: BaseException) -> list[str]:
    """One line for each thing that the user can mend; none where the error is not of that kind."""
    # Late, so that this module can be there before these imports, which take seconds.
    from pydantic import ValidationError

    from fedsim.audit import ClaimExceeded
    from fedsim.grids import GridError
    from fedsim.part import Part
    from fedsim.policy import PolicyError
    from fedsim.query_log import LogBroken
    from fedsim.scenario import explain
    from fedsim.scripts import ScriptError
    from fedsim.store import StoreError
    from fedsim.tasks import TaskError

    if isinstance(error, ValidationError):
        return explain(error) if error.title in {part.__name__ for part in Part.__subclasses__()} else []
    if isinstance(error, ScriptError | StoreError | TaskError | GridError | PolicyError | ClaimExceeded | LogBroken):
        return [" ".join(str(error).split())]
    return []


def tell_in_a_line() -> None:
    """From now on an uncaught mistake ends a program plainly; other errors, and interactive sessions, do as before."""
    before = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if hasattr(sys, "ps1") or not (lines := mendable(error)):
            before(kind, error, trace)
        else:
            print(*(f"error: {line}" for line in lines), sep="\n", file=sys.stderr)
            sys.exit(BAD_INPUT)

    sys.excepthook = tell


def leave(last_words: str) -> NoReturn:
    """End the process at once, whatever its threads do."""
    print(last_words, file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


@contextmanager
def leaving_on_interrupt() -> Iterator[None]:
    """While modules are imported Ctrl-C ends the process: raised in their midst, some would swallow or garble it."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave_now(number: int, frame: FrameType | None) -> None:
        leave("interrupted")

    signal.signal(signal.SIGINT, leave_now)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
