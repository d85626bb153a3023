"""Homomorphic aggregation's server half: one exchange a round, then what this deployment lets the server do."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from crypto.he import Ciphertext, HEError, carries_secret_key, decrypt
from crypto.he.errors import CorruptMessageError, KeyPolicyError, SecretKeyExposedError
from crypto.he.keyless import add
from strategies.collusion import HANDED
from strategies.federated import DROPPED_OUT, FederatedMean, RoundRecord
from strategies.he_client import ciphertext_array
from strategies.he_deployment import ServerKeys
from strategies.he_layout import Layout, State
from strategies.he_sealing import ClearSum
from strategies.homomorphic import Homomorphic
from strategies.opened import Opened
from strategies.sample import sampled


@dataclass(frozen=True)
class Answer:
    """What one client sent: its ciphertext, None where nothing is encrypted, and what is not, in clear.

    ``told`` is a colluding client's whole vector (d,) times its weight, and that weight.
    """

    client: int
    ciphertext: Ciphertext | None
    clear: ClearSum
    told: tuple[NDArray[np.float64], int] | None = None


def refuse_secret_keys(content: RecordDict, sender: str) -> None:
    """The server's boundary: raises SecretKeyExposedError for any byte array that carries a secret key."""
    arrays = (array.data for record in content.array_records.values() for array in record.values())
    values = (value for record in content.config_records.values() for value in record.values())
    parts = (part for value in values for part in (value if isinstance(value, list) else [value]))
    if any(carries_secret_key(data) for data in (*arrays, *parts) if isinstance(data, bytes)):
        raise SecretKeyExposedError(f"{sender}: sent a secret key to the server; make new keys and send Keys.public")


class HomomorphicMean(FederatedMean):
    """``FederatedMean`` over ciphertexts. ``opened`` collects what this server can read, round by round.

    ``layout`` says what a vector holds, ``in_clear`` collects what anybody reads on the wire. A client whose answer
    cannot be used is named and left out. Raises SecretKeyExposedError where a secret key reaches the server.
    """

    def __init__(
        self, *, parameters: Sequence[str], keys: ServerKeys, buffers: Sequence[str] = (), **federated: Any
    ) -> None:
        super().__init__(**federated)
        self.layout = Layout(tuple(parameters), tuple(buffers))
        self.in_clear: list[Opened] = []
        self.defence = next(d for d in self.stack.defences if isinstance(d, Homomorphic))
        self.keys, self.sealing = keys, keys.sealing(self.defence)

    def train_round(
        self, grid: Grid, round: int, arrays: ArrayRecord
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Ask, add, and open what may be opened; a round that ends without a sum leaves the model, and says why."""
        record = RoundRecord(round, sorted(self.cohort_of(round)))
        self.rounds.append(record)
        state = dict(arrays.to_torch_state_dict())
        answers = self._ask(grid, record, arrays)
        try:
            total, answers = self._add(record, answers)
            if not answers:
                return None, None
            record.answered = [answer.client for answer in answers]
            self._read_clear(round, answers, state)
            mean = self._finish(round, total, answers, state)
        except SecretKeyExposedError:
            raise
        except HEError as error:
            record.answered, record.aborted = [], f"{type(error).__name__}: {error}"
            return None, None
        if mean is not None:
            with self.clock.timed("aggregate"):
                self.layout.move(state, self.step_size, mean)
        return ArrayRecord(state), MetricRecord({})

    @abstractmethod
    def _finish(
        self, round: int, total: Ciphertext | None, answers: Sequence[Answer], state: State
    ) -> NDArray[np.float64] | None:
        """Do with the round's sum what the deployment allows; the mean vector by which the server's model moves."""

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
        entries = {"parameters": list(self.layout.parameters), "buffers": list(self.layout.buffers)}
        return ConfigRecord({"round": round, "update_kind": self.kind, "step_size": self.step_size, **entries})

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
        told_whole = None
        if HANDED in content.config_records:
            handed = content.config_records[HANDED]
            vector, own = np.frombuffer(cast(bytes, handed["vector"])), cast(int, handed["weight"])
            told_whole = vector * own, own
        return Answer(client, hidden, ClearSum(clear * weight, weight), told_whole)

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

    def _base(self, state: State) -> State | None:
        """The model of this round as far as the server knows it, where that is not the one it sent."""
        return None

    def _read_clear(self, round: int, answers: Sequence[Answer], state: State) -> None:
        """Note what the server reads with no key: of each client's update, the coordinates in clear."""
        if not len(self.sealing.selection.clear):
            return
        known = np.full(self.sealing.selection.size, np.nan)
        for answer in answers:
            known[self.sealing.selection.clear] = answer.clear.values / answer.clear.weight
            update = self.layout.update(known, state)
            beside: dict[str, Any] = (
                {"partial": True} if self.sealing.length else {"buffers": self.layout.left(known, state)}
            )
            opened = Opened(round, self.kind, update, 1, answer.client, base=self._base(state), **beside)
            self.in_clear.append(opened)
            self.opened.append(opened)

    def _mean(
        self, round: int, values: NDArray[Any] | None, answers: Sequence[Answer], state: State, *, note: bool
    ) -> NDArray[np.float64]:
        with self.clock.timed("aggregate"):
            vector, weight = self.sealing.opened(values, len(answers), clear_sum(answers))
            mean = vector / weight
        self.means[round] = sampled(mean[: self.layout.size(state)])
        if note:
            honest = [answer for answer in answers if answer.told is None]
            if 0 < len(honest) < len(answers):
                told = [answer.told for answer in answers if answer.told is not None]
                left, of_them = vector - sum(vector for vector, _ in told), weight - sum(own for _, own in told)
                self.opened.append(self._reading(round, left, of_them, honest, state))
            self.opened.append(self._reading(round, vector, weight, answers, state))
        return mean

    def _reading(
        self, round: int, total: NDArray[np.float64], weight: float, answers: Sequence[Answer], state: State
    ) -> Opened:
        """A weighted ``total`` (d,) over who sent ``answers``, as this server reads it: of one, its own update."""
        clients, alone = tuple(answer.client for answer in answers), len(answers) == 1
        return Opened(
            round,
            self.kind,
            self.layout.update(total / weight if alone else total, state),
            len(clients),
            clients[0] if alone else None,
            clients=clients,
            weight=float(weight) if self.defence.max_weight > 1 and not alone else None,
            buffers=self.layout.left(total / weight, state),
        )


class DecryptedMean(HomomorphicMean):
    """``trusted_decryptor``: the sum goes to the decryptor as a ciphertext and comes back as values."""

    def _finish(
        self, round: int, total: Ciphertext | None, answers: Sequence[Answer], state: State
    ) -> NDArray[np.float64] | None:
        if self.keys.decryptor is None:
            raise KeyPolicyError("decryptor: this deployment has none")
        with self.clock.timed("add"):
            message = None if total is None else total.to_bytes()
        values = None if message is None else self.keys.decryptor.open(message, round)
        return self._mean(round, values, answers, state, note=True)


class KeyHoldingMean(HomomorphicMean):
    """``server_holds_key``: the server decrypts the sum, as agreed, and, being curious, each client's vector."""

    def _finish(
        self, round: int, total: Ciphertext | None, answers: Sequence[Answer], state: State
    ) -> NDArray[np.float64] | None:
        secret = self.keys.secret
        if secret is None:
            raise KeyPolicyError("key: this server has none")
        with self.clock.timed("decrypt"):
            values = None if total is None else decrypt(secret, total)
        self.opened = [o for o in self.opened if o.round != round]  # whole updates take the place of their clear parts
        for answer in answers:
            vector, weight = self.sealing.decrypted(secret, answer.ciphertext, answer.clear)
            mean = vector / weight
            update, beside = self.layout.update(mean, state), self.layout.left(mean, state)
            self.opened.append(Opened(round, self.kind, update, 1, answer.client, buffers=beside))
        return self._mean(round, values, answers, state, note=False)


class BlindMean(HomomorphicMean):
    """``clients_share_key``: the server keeps ciphertexts of every round's sum, and hands them on.

    The model that it is given stays the first one, which it sends to a client that it has not yet asked; to each it
    also sends the sums that this client has not seen.
    """

    def __init__(self, **federated: Any) -> None:
        super().__init__(**federated)
        self._sums: dict[int, tuple[bytes, NDArray[np.float64]]] = {}
        self._told: dict[int, int] = {}
        self._known = np.zeros(self.sealing.selection.size)  # how far the clear sums moved the model since the first

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

    def _finish(
        self, round: int, total: Ciphertext | None, answers: Sequence[Answer], state: State
    ) -> NDArray[np.float64] | None:
        clear = clear_sum(answers)
        self._told.update({answer.client: round - 1 for answer in answers})
        with self.clock.timed("add"):
            message = total.to_bytes() if total else b""
        self._sums[round] = message, np.append(clear.values, clear.weight)
        if len(clear.values):
            self._known[self.sealing.selection.clear] += clear.values / clear.weight
        return None

    def _base(self, state: State) -> State | None:
        known = dict(state)
        self.layout.move(known, self.step_size, self._known)
        return known if self._known.any() else None


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
