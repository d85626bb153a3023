"""Why a protocol run stopped: one type per cause, each naming the stage and the client concerned.

The protocol knows clients by their places in the cohort, and its reasons write one as ``client <place>``.
"""

import re
from collections.abc import Sequence
from typing import Self


class InfeasibleParameters(ValueError):
    """No setting of the protocol meets what was asked; nothing is clamped to one that nearly does."""


class SecAggError(Exception):
    """The run ends without a sum: ``client`` (None: the server itself) found or caused it at ``stage``."""

    def __init__(self, client: int | None, stage: str, reason: str) -> None:
        super().__init__(client, stage, reason)
        self.client, self.stage, self.reason = client, stage, reason

    def __str__(self) -> str:
        who = "server" if self.client is None else f"client {self.client}"
        return f"{type(self).__name__} at stage {self.stage!r}, {who}: {self.reason}"

    def numbered(self, cohort: Sequence[int]) -> Self:
        """The same error with each place in ``cohort`` replaced by the number of the client that stands there."""

        def number(place: int) -> int:
            return cohort[place] if place < len(cohort) else place

        reason = re.sub(r"(?<=\bclient )\d+", lambda found: str(number(int(found[0]))), self.reason)
        return type(self)(None if self.client is None else number(self.client), self.stage, reason)


class MalformedMessage(SecAggError):
    """The bytes are not one whole, well-formed message."""


class CorruptMessage(MalformedMessage):
    """The checksum does not fit the bytes."""


class WrongRound(SecAggError):
    """The message belongs to another session or round."""


class WrongStage(SecAggError):
    """The message, or the call, does not belong to the stage the receiver is in."""


class UnknownClient(SecAggError):
    """The message names a client that takes no part, or that is not who sent it."""


class DuplicateMessage(SecAggError):
    """A second message, key or share where one is allowed."""


class PolicyViolation(SecAggError):
    """The server's terms are outside what the client accepts."""


class ReplayedRound(SecAggError):
    """The client has already taken part in this round, or in a later one."""


class BadKey(SecAggError):
    """A public key that contributes nothing to the shared secret (low order), or no key at all."""


class BadSignature(SecAggError):
    """A signature is missing or does not verify under the registered key of its client."""


class BadRoster(SecAggError):
    """The neighbours offered are not a neighbourhood in the announced graph."""


class BadShare(SecAggError):
    """A share does not authenticate, or the shares do not rebuild what their owner committed to."""


class BadUpdate(SecAggError):
    """The update cannot be encoded: wrong size, not finite, outside the clip, or a weight out of range."""


class OverlappingSets(SecAggError):
    """A client is listed both as a survivor and as dropped: answering would reveal both of its masks."""


class BadSurvivorSet(SecAggError):
    """The survivor set names strangers or repeats, omits the client asked, or leaves a neighbour out."""


class TooFewSurvivors(SecAggError):
    """The survivor set is smaller than the threshold or than the client's own minimum."""


class InconsistentSurvivors(SecAggError):
    """Not enough neighbours signed the survivor set that this client was shown."""


class AlreadyUnmasked(SecAggError):
    """A second unmask request in one round."""


class TooFewClients(SecAggError):
    """Too many clients dropped out for the sum to be opened."""


REFUSALS: frozenset[type[SecAggError]] = frozenset(
    {
        MalformedMessage,
        CorruptMessage,
        WrongRound,
        WrongStage,
        UnknownClient,
        DuplicateMessage,
        PolicyViolation,
        ReplayedRound,
        BadKey,
        BadSignature,
        BadRoster,
        BadShare,
        OverlappingSets,
        BadSurvivorSet,
        TooFewSurvivors,
        InconsistentSurvivors,
        AlreadyUnmasked,
    }
)
"""What a client raises at a message that is against the rules, or against its policy. The others are no defence:
with BadUpdate a client fails on its own vector, whoever asks, and TooFewClients is the server's own error."""
