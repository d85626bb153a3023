"""How a program ends where the user, or Ctrl-C, is the reason: in one line for each mistake, not in a traceback."""

import sys
from types import TracebackType

BAD_INPUT = 2
INTERRUPTED = 130
"""Exit codes."""


def mendable(error: BaseException) -> list[str]:
    """One line for each thing that the user can mend; none where the error is not of that kind."""
    if not isinstance(error, ValueError | RuntimeError):
        return []
    # Late, so that the hook is there before these imports, which take seconds.
    from pydantic import ValidationError

    from fedsim.grids import GridError
    from fedsim.scenario import Part, explain
    from fedsim.scripts import ScriptError
    from fedsim.store import StoreError
    from fedsim.tasks import TaskError

    if isinstance(error, ValidationError):
        return explain(error) if error.title in {part.__name__ for part in Part.__subclasses__()} else []
    if isinstance(error, ScriptError | StoreError | TaskError | GridError):
        return [" ".join(str(error).split())]
    return []


def install() -> None:
    """Tell mistakes plainly in whatever imports fedsim; other errors, and interactive sessions, stay as they are."""
    before = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if hasattr(sys, "ps1"):
            before(kind, error, trace)
        elif isinstance(error, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)
        elif lines := mendable(error):
            print(*(f"error: {line}" for line in lines), sep="\n", file=sys.stderr)
            sys.exit(BAD_INPUT)
        else:
            before(kind, error, trace)

    sys.excepthook = tell
