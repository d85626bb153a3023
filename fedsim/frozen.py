"""JSON that cannot change once it is in a scenario, so that the scenario's digest cannot either."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, BaseModel


class FrozenDict(dict[str, Any]):
    """A dict that refuses every change; it compares, copies and pickles as a dict does."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a scenario cannot be changed; make another one")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


def frozen(value: Any) -> Any:
    """``value`` as immutable JSON: models and dataclasses become dicts, lists tuples.

    Raises ValueError for what JSON cannot hold and give back equal, such as arrays, NaN or numbered keys.
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"{wrong[0]!r} names an entry; write it as text, {str(wrong[0])!r}")
        return FrozenDict({key: frozen(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(
        f"holds a {type(value).__name__} ({str(value)[:40]}), which JSON cannot; use numbers, text and lists"
    )


Json = Annotated[dict[str, Any], AfterValidator(frozen)]
"""A pydantic field that holds a ``FrozenDict``."""
