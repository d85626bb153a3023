"""Who may call the deployed model: callers by API key, each in a role that says what is answered, and how often."""

import hashlib
import secrets
import tomllib
from collections import deque
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from attacks import OracleError, UnknownCaller
from fedsim.deployment import Deployment
from fedsim.names import nearest
from fedsim.part import Part
from fedsim.tasks import TaskError

WINDOW = 60.0
"""Seconds that a rate limit looks back."""


class RateLimited(OracleError):
    """The request was refused whole: with it the caller would have asked more in a minute than its role may."""

    def __init__(self, asked: int, per_minute: int) -> None:
        super().__init__(
            f"rate limit: {asked} inputs asked, at most {per_minute} a minute are answered; wait, or ask less"
        )
        self.asked, self.per_minute = asked, per_minute


class Role(Part):
    """What callers of one kind get."""

    deployment: Deployment = Deployment(access="label_only")
    per_minute: int | None = Field(None, ge=1)
    """Inputs answered in any minute; None sets no limit."""


class Caller(Part):
    """One caller. Only the SHA-256 of its key is kept; ``new_key`` makes both."""

    role: str
    key_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Callers(Part):
    """The list of a deployment: everybody else is refused."""

    roles: dict[str, Role] = Field(min_length=1)
    callers: dict[str, Caller] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _every_role_exists(self) -> Self:
        strange = [
            f"callers.{name}.role = {caller.role!r}: no such role; {nearest(caller.role, self.roles)}"
            for name, caller in self.callers.items()
            if caller.role not in self.roles
        ]
        shared = len({caller.key_sha256 for caller in self.callers.values()}) < len(self.callers)
        if strange or shared:
            raise ValueError(
                "; ".join([*strange, *(["callers: two share a key; give each its own"] if shared else [])])
            )
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML file; raises TaskError with every problem in it."""
        from fedsim.scenario import explain

        try:
            return cls(**tomllib.loads(path.read_text()))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TaskError("callers", str(path), f"cannot be read ({error})", "name a TOML file") from None
        except ValidationError as error:
            raise TaskError("callers", str(path), "; ".join(explain(error)), "mend the file") from None

    def known_by(self, key: str) -> str:
        """The name of the caller with this key; raises UnknownCaller, which does not repeat the key."""
        digest = _digest(key)
        found = [name for name, c in self.callers.items() if secrets.compare_digest(c.key_sha256, digest)]
        if not found:
            raise unknown(key)
        return found[0]


def unknown(key: str) -> UnknownCaller:
    """The error for a key that nobody has; it tells the key's digest alone, and of that the beginning."""
    return UnknownCaller(f"with key {_digest(key)[:8]}...")


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode(errors="backslashreplace")).hexdigest()


def new_key() -> tuple[str, str]:
    """A fresh API key from the operating system's generator, and the SHA-256 that the list keeps of it."""
    key = secrets.token_urlsafe(24)
    return key, _digest(key)


class Pace:
    """Counts the inputs that one caller was answered in the last minute."""

    def __init__(self, per_minute: int | None) -> None:
        self.per_minute, self._recent = per_minute, deque[tuple[float, int]]()

    def admit(self, asked: int, now: float) -> None:
        """Raises RateLimited where a request made at ``now``, in seconds, would pass the limit; counts nothing."""
        self._forget(now)
        if self.per_minute is not None and sum(count for _, count in self._recent) + asked > self.per_minute:
            raise RateLimited(asked, self.per_minute)

    def count(self, answered: int, now: float) -> None:
        """Count what was answered at ``now``."""
        self._forget(now)
        if self.per_minute is not None:
            self._recent.append((now, answered))

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0][0] <= now - WINDOW:
            self._recent.popleft()


def as_fields(error: OracleError) -> dict[str, Any]:
    """An error as it crosses the wire: its name, its fields and its sentence."""
    return {"error": type(error).__name__, "fields": list(vars(error).values()), "says": str(error)}
