"""What to say about a name that nothing is registered under."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The name, quoted, with the registered names that it may have meant."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3)
    return f"{name!r}: unknown; " + (f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}")
