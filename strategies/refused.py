"""Why a server that lied got nothing: clients refused it, or failed on their own, which is no defence."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

from crypto.errors import REFUSALS
from strategies.federated import RoundRecord

MODEL_REFUSED = "ModelRefused"
"""The error of a client that looked at the model it was sent (``strategies.client_checks``); its signal follows it."""
NAMES = {MODEL_REFUSED, *(kind.__name__ for kind in REFUSALS)}
"""The errors with which clients refuse a server; with any other, a client failed on its own."""
OWN = "the clients' own error"

Whom = Callable[[Sequence[int]], str]
"""The words for the clients that had one error."""
_ERROR = re.compile(r"([\w\[\]]+) at stage")
"""A typed error in a reason; where one wraps another, the last one is the cause."""


def cause(reason: str) -> str:
    """The error that came first, by its type; ``an error`` where the reason names none."""
    return (_ERROR.findall(reason) or ["an error"])[-1]


def refusals(record: RoundRecord) -> dict[int, str]:
    """The clients that refused to go on, with their reasons."""
    return {client: reason for client, reason in record.failed.items() if cause(reason).split("[")[0] in NAMES}


def stopped_by(record: RoundRecord, whom: Whom, *, least: int = 1, victim: int | None = None) -> str | None:
    """The errors with which clients refused, and the first one in full; None where they are not what ended the round.

    They are where, had nobody refused, at least ``least`` clients would have answered, and the ``victim`` among them.
    """
    refused = refusals(record)
    own = record.failed.keys() - refused.keys()
    stopped = refused and _enough(record, own.union(record.dropped), least, victim)
    return f"stopped by {_by_type(refused, whom)}" if stopped else None


def own_errors(record: RoundRecord, whom: Whom, *, least: int = 1, victim: int | None = None) -> str | None:
    """The errors of clients that failed on their own, as ``stopped_by`` tells refusals; None where enough were left."""
    refused = refusals(record)
    own = {client: reason for client, reason in record.failed.items() if client not in refused}
    failed = own and not _enough(record, own.keys(), least, victim)
    return f"{OWN} {_by_type(own, whom)}" if failed else None


def _enough(record: RoundRecord, gone: Collection[int], least: int, victim: int | None) -> bool:
    left = [client for client in record.cohort if client not in gone]
    return len(left) >= least and (victim is None or victim in left)


def _by_type(failed: Mapping[int, str], whom: Whom) -> str:
    clients: dict[str, list[int]] = defaultdict(list)
    for client, reason in failed.items():
        clients[cause(reason)].append(client)
    named = "; ".join(f"{error} ({whom(those)})" for error, those in clients.items())
    return f"{named}: {next(iter(failed.values()))}"
