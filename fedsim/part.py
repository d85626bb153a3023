"""What every part of a scenario is built on."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from fedsim.names import nearest


class Part(BaseModel):
    """A part of a scenario: immutable, and closed to fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _no_strange_field(cls, fields: Any) -> Any:
        strange = [str(name) for name in fields if name not in cls.model_fields] if isinstance(fields, Mapping) else []
        if strange:
            raise ValueError("; ".join(f"no field {name!r}; {nearest(name, cls.model_fields)}" for name in strange))
        return fields
