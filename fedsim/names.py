"""What to offer for a name that nothing is registered under."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The registered names that ``name`` may have meant, or all of them where it resembles none."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3)
    return f"nearest: {', '.join(close)}" if close else f"known: {', '.join(names)}"
