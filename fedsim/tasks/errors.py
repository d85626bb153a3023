"""What a user hears when a task cannot be built."""

from typing import Any


class TaskError(ValueError):
    """One invalid field of a task, on one line: the field, its value, why it cannot be, and what to do."""

    def __init__(self, field: str, value: object, reason: str, remedy: str) -> None:
        super().__init__(f"{field} = {_short(value)}: {_one_line(reason)}; {_one_line(remedy)}")
        self.field = field
        self.value = value
        self.reason = _one_line(reason)
        self.remedy = _one_line(remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.field, self.value, self.reason, self.remedy)


def _short(value: object, limit: int = 120) -> str:
    text = _one_line(repr(value))
    return text if len(text) <= limit else f"{text[:limit]}..."


def _one_line(text: str) -> str:
    return " ".join(text.split())
