"""Homomorphic aggregation's server half: one exchange a round, then what this deployment lets the server do."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from crypto.he import Ciphertext, HEError, add, carries_secret_key, decrypt
from crypto.he.errors import CorruptMessageError, KeyPolicyError, SecretKeyExposedError
from strategies.base import Update
from strategies.federated import DROPPED_OUT, FederatedMean, RoundRecord
from strategies.he_client import ciphertext_array, moved
from strategies.he_deployment import ServerKeys
from strategies.he_sealing import ClearSum
from strategies.homomorphic import Homomorphic
from strategies.opened import Opened
from strategies.sample import sampled
from strategies.secure_aggregation import unflat


@dataclass(frozen=True)
class Answer:
    """What one client sent: its ciphertext, None where nothing is encrypted, and what is not, in clear."""

    client: int
    ciphertext: Ciphertext | None
    clear: ClearSum


def refuse_secret_keys(content: RecordDict, sender: str) -> None:
    """The server's boundary: raises SecretKeyExposedError for any byte array that carries a secret key."""
    arrays = (array.data for record in content.array_records.values() for array in record.values())
    values = (value for record in content.config_records.values() for value in record.values())
    parts = (part for value in values for part in (value if isinstance(value, list) else [value]))
    if any(carries_secret_key(data) for data in (*arrays, *parts) if isinstance(data, bytes)):
        raise SecretKeyExposedError(f"{sender}: sent a secret key to the server; make new keys and send Keys.public")


class HomomorphicMean(FederatedMean):
    """``FederatedMean`` over ciphertexts. ``opened`` collects what this server can read, round by round.

    ``parameters`` names the entries of the model that updates are about; the others are buffers. A client whose
    answer cannot be used is named and left out. Raises SecretKeyExposedError where a secret key reaches the server.
    """

    def __init__(self, *, parameters: Sequence[str], keys: ServerKeys, **federated: Any) -> None:
        super().__init__(**federated)
        self.parameters = tuple(parameters)
        self.defence = next(d for d in self.stack.defences if isinstance(d, Homomorphic))
        self.keys, self.sealing = keys, keys.sealing(self.defence)

    def train_round(
        self, grid: Grid, round: int, arrays: ArrayRecord
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Ask, add, and open what may be opened; a round that ends without a sum leaves the model, and says why."""
        record = RoundRecord(round, sorted(self.cohort_of(round)))
        self.rounds.append(record)
        state = dict(arrays.to_torch_state_dict())
        like = {name: state[name] for name in self.parameters}
        answers = self._ask(grid, record, arrays)
        try:
            total, answers = self._add(record, answers)
            if not answers:
                return None, None
            record.answered = [answer.client for answer in answers]
            self._read_clear(round, answers, like)
            mean = self._finish(round, total, answers, like)
        except SecretKeyExposedError:
            raise
        except HEError as error:
            record.answered, record.aborted = [], f"{type(error).__name__}: {error}"
            return None, None
        with self.clock.timed("aggregate"):
            moved(state, self.step_size, mean)
        return ArrayRecord(state), MetricRecord({})

    @abstractmethod
    def _finish(self, round: int, total: Ciphertext | None, answers: Sequence[Answer], like: Update) -> Update:
        """Do with the round's sum what the deployment allows; the mean by which the server's own model moves."""

    def _content(self, record: RoundRecord, client: int, arrays: ArrayRecord) -> dict[str, Any]:
        """What an instruction holds besides its configuration."""
        return {"arrays": arrays}

    def _ask(self, grid: Grid, record: RoundRecord, arrays: ArrayRecord) -> list[Answer]:
        """One exchange; the good answers in the order of the clients."""
        messages = [
            Message(
                RecordDict({"config": self.config(record.round), **self._content(record, client, arrays)}),
                self.nodes[client],
                "train.he_update",
                group_id=str(record.round),
            )
            for client in record.cohort
        ]
        good = []
        replies = list(grid.send_and_receive(messages))
        for reply in sorted(replies, key=lambda reply: self.partitions[reply.metadata.src_node_id]):
            client = self.partitions[reply.metadata.src_node_id]
            if reply.has_error():
                if reply.error.code == DROPPED_OUT:
                    record.dropped.append(client)
                else:
                    record.failed[client] = reply.error.reason or f"error {reply.error.code}"
                continue
            refuse_secret_keys(reply.content, f"client {client}")
            try:
                with self.clock.timed("read"):
                    good.append(self._read(client, reply.content))
            except HEError as error:
                record.failed[client] = f"client {client}: {type(error).__name__}: {error}"
        heard = {self.partitions[reply.metadata.src_node_id] for reply in replies}
        record.failed.update({c: "did not answer in time" for c in record.cohort if c not in heard})
        return good

    def config(self, round: int) -> ConfigRecord:
        """The public configuration of a round."""
        public = {"update_kind": self.kind, "step_size": self.step_size, "parameters": list(self.parameters)}
        return ConfigRecord({"round": round, **public})

    def _read(self, client: int, content: RecordDict) -> Answer:
        """One client's answer, checked; raises HEError."""
        records, expected = content.array_records, len(self.sealing.selection.clear)
        for name, due in (("hidden", bool(self.sealing.length)), ("clear", bool(expected))):
            if due and "vector" not in records.get(name, {}):
                raise CorruptMessageError(f"answer: has no {name} vector")
        hidden = self.sealing.read(records["hidden"]["vector"].data) if self.sealing.length else None
        told = content.metric_records.get("metrics", MetricRecord()).get("num-examples", 0)
        weight = cast(int, told) if self.sealing.tells_weight else 1
        if not 1 <= weight <= self.defence.max_weight:
            raise CorruptMessageError(f"answer: weight {weight}, where 1 to {self.defence.max_weight} is due")
        clear = records["clear"]["vector"].numpy().astype(np.float64) if expected else np.empty(0)
        if clear.shape != (expected,) or not np.isfinite(clear).all():
            raise CorruptMessageError(f"clear part: must be {expected} finite numbers")
        return Answer(client, hidden, ClearSum(clear * weight, weight))

    def _add(self, record: RoundRecord, answers: list[Answer]) -> tuple[Ciphertext | None, list[Answer]]:
        """The sum of the ciphertexts, and whose are in it: where SEAL refuses one, all but that one."""
        sealed = [answer.ciphertext for answer in answers if answer.ciphertext is not None]
        if not sealed:
            return None, answers
        try:
            with self.clock.timed("add"):
                total = add(self.keys.context, sealed)
        except CorruptMessageError:
            usable = [answer for answer in answers if self._loads(record, answer)]
            if len(usable) in (0, len(answers)):
                raise
            return self._add(record, usable)
        return total, answers

    def _loads(self, record: RoundRecord, answer: Answer) -> bool:
        try:
            add(self.keys.context, [cast(Ciphertext, answer.ciphertext)])
        except HEError as error:
            record.failed[answer.client] = f"client {answer.client}: {type(error).__name__}: {error}"
            return False
        return True

    def _read_clear(self, round: int, answers: Sequence[Answer], like: Update) -> None:
        """Note what the server reads with no key: of each client's update, the coordinates in clear."""
        if not len(self.sealing.selection.clear):
            return
        known = np.full(self.sealing.selection.size, np.nan)
        for answer in answers:
            known[self.sealing.selection.clear] = answer.clear.values / answer.clear.weight
            partial = self.sealing.length > 0
            self.opened.append(Opened(round, self.kind, unflat(known, like), 1, answer.client, partial))

    def _mean(
        self, round: int, values: NDArray[Any] | None, answers: Sequence[Answer], like: Update, *, note: bool
    ) -> Update:
        with self.clock.timed("aggregate"):
            vector, weight = self.sealing.opened(values, len(answers), clear_sum(answers))
            mean = unflat(vector / weight, like)
        self.means[round] = sampled(vector / weight)
        if note:
            self.opened.append(Opened(round, self.kind, unflat(vector, like), len(answers)))
        return mean


class DecryptedMean(HomomorphicMean):
    """``trusted_decryptor``: the sum goes to the decryptor as a ciphertext and comes back as values."""

    def _finish(self, round: int, total: Ciphertext | None, answers: Sequence[Answer], like: Update) -> Update:
        if self.keys.decryptor is None:
            raise KeyPolicyError("decryptor: this deployment has none")
        with self.clock.timed("add"):
            message = None if total is None else total.to_bytes()
        values = None if message is None else self.keys.decryptor.open(message, round)
        return self._mean(round, values, answers, like, note=True)


class KeyHoldingMean(HomomorphicMean):
    """``server_holds_key``: the server decrypts the sum, as agreed, and, being curious, each client's vector."""

    def _finish(self, round: int, total: Ciphertext | None, answers: Sequence[Answer], like: Update) -> Update:
        secret = self.keys.secret
        if secret is None:
            raise KeyPolicyError("key: this server has none")
        with self.clock.timed("decrypt"):
            values = None if total is None else decrypt(secret, total)
        self.opened = [o for o in self.opened if o.round != round]  # whole updates take the place of their clear parts
        for answer in answers:
            vector, weight = self.sealing.decrypted(secret, answer.ciphertext, answer.clear)
            self.opened.append(Opened(round, self.kind, unflat(vector / weight, like), 1, answer.client))
        return self._mean(round, values, answers, like, note=False)


class BlindMean(HomomorphicMean):
    """``clients_share_key``: the server keeps ciphertexts of every round's sum, and hands them on.

    The model that it is given stays the first one, which it sends to a client that it has not yet asked; to each it
    also sends the sums that this client has not seen.
    """

    def __init__(self, **federated: Any) -> None:
        super().__init__(**federated)
        self._sums: dict[int, tuple[bytes, NDArray[np.float64]]] = {}
        self._told: dict[int, int] = {}

    def _content(self, record: RoundRecord, client: int, arrays: ArrayRecord) -> dict[str, Any]:
        first = {} if client in self._told else {"arrays": arrays}
        return {**first, **self.unseen(self._told.get(client, 0))}

    def unseen(self, told: int) -> dict[str, ArrayRecord]:
        """The sums of the rounds after ``told``, as records of a message."""
        later = {str(round): entry for round, entry in self._sums.items() if round > told}
        if not later:
            return {}
        records = {"aggregates": ArrayRecord({key: ciphertext_array(data) for key, (data, _) in later.items()})}
        if len(self.sealing.selection.clear):
            records["aggregates_clear"] = ArrayRecord({key: Array(clear) for key, (_, clear) in later.items()})
        return records

    def _finish(self, round: int, total: Ciphertext | None, answers: Sequence[Answer], like: Update) -> Update:
        clear = clear_sum(answers)
        self._told.update({answer.client: round - 1 for answer in answers})
        with self.clock.timed("add"):
            message = total.to_bytes() if total else b""
        self._sums[round] = message, np.append(clear.values, clear.weight)
        return {}


SERVERS: dict[str, type[HomomorphicMean]] = {
    "clients_share_key": BlindMean,
    "trusted_decryptor": DecryptedMean,
    "server_holds_key": KeyHoldingMean,
}
"""The server's half of each deployment, by the name of its key holder."""


def clear_sum(answers: Sequence[Answer]) -> ClearSum:
    """The sum of the clear parts, in the order of the clients, and of the weights told with them."""
    values = np.sum([answer.clear.values for answer in answers], axis=0)
    return ClearSum(values, sum(answer.clear.weight for answer in answers))
