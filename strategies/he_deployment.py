"""Who is given which key before training, and what each party but the server can do with it.

All of it goes past the server: over the key authority's own channel to the clients (``grid``, unrecorded).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import ArrayLike, NDArray

from crypto.he import Decryptor, HEError, Keys, SecretContext, Selection, generate_keys, open_secret, select
from crypto.he.keyless import AnyContext, open_context
from strategies.he_sealing import Sealing, mask_of
from strategies.he_shares import joined
from strategies.homomorphic import Homomorphic


@dataclass(frozen=True)
class ServerKeys:
    """What the server is given: never a secret key, except under ``server_holds_key``.

    Raises SecretKeyExposedError where ``public`` carries a secret key.
    """

    public: bytes = field(repr=False)
    selection: Selection
    decryptor: Decryptor | None = None
    """The decryptor as the server reaches it: its key is in a process of its own."""
    mistake: bytes | None = field(default=None, repr=False)
    """The secret key, where the deployment makes the mistake to give it to the server."""

    def __post_init__(self) -> None:
        open_context(self.public)

    @property
    def context(self) -> AnyContext:
        """Enough to add."""
        return open_context(self.public)

    @property
    def secret(self) -> SecretContext | None:
        """None on every server that does not make the mistake."""
        return None if self.mistake is None else open_secret(self.mistake)

    def sealing(self, defence: Homomorphic) -> Sealing:
        """How this federation's vectors are put together."""
        return Sealing(defence, self.context, self.selection)


@dataclass(frozen=True)
class Deployment:
    """One federation's keys, handed out; the experimenter's, who alone may look into clients through ``grid``."""

    server: ServerKeys
    grid: Grid = field(repr=False)
    nodes: Mapping[int, int]

    def model_of(self, client: int, first: ArrayRecord, catch_up: RecordDict) -> ArrayRecord:
        """The model that a client holds once it has decrypted what the server has for it: to measure accuracy.

        Raises HEError where the client cannot tell.
        """
        reply = self._ask(client, "query.he_model", RecordDict({"arrays": first, **dict(catch_up)}))
        return reply.content.array_records["model"]

    def secret_of(self, client: int) -> bytes:
        """The secret key that a client hands over which colludes; raises HEError for one that does not."""
        reply = self._ask(client, "query.he_collude", RecordDict())
        return cast(bytes, reply.content.config_records["key"]["secret"])

    def _ask(self, client: int, action: str, content: RecordDict) -> Message:
        replies = list(self.grid.send_and_receive([Message(content, self.nodes[client], action, group_id="0")]))
        if not replies or replies[0].has_error():
            raise HEError(f"client {client}: {replies[0].error.reason if replies else 'does not answer'}")
        return replies[0]


def hand_out(
    grid: Grid,
    nodes: Mapping[int, int],
    defence: Homomorphic,
    cohort: int,
    sensitivity: ArrayLike,
    beside: int = 0,
) -> Deployment:
    """Make the keys for rounds of at most ``cohort`` clients and give every party its own.

    ``sensitivity`` (d,) ranks the coordinates of an update; ``beside`` values of buffers stand behind them in a vector,
    and are encrypted with any of them. Raises HEError where a client does not take its key.
    """
    decryptor = None
    if defence.holder.holder == "nobody":
        keys = Keys(joined(grid, nodes, cohort), b"")
    elif defence.holder.holder == "decryptor":
        decryptor = Decryptor(defence.parameters, cohort, defence.minimum_cohort)
        keys = Keys(decryptor.public, b"")
    else:
        keys = generate_keys(defence.parameters, cohort)
    selection = select(sensitivity, defence.encrypted_fraction).followed_by(beside)
    given: dict[str, bytes | int] = {
        "context": defence.holder.context_for("clients", keys, seeded=defence.seeded),
        "mask": mask_of(selection),
        "size": selection.size,
    }
    asked = [
        Message(RecordDict({"keys": ConfigRecord({**given})}), node, "query.he_enrol", group_id="0")
        for node in nodes.values()
    ]
    for reply in grid.send_and_receive(asked):
        if reply.has_error():
            raise HEError(f"node {reply.metadata.src_node_id}: took no key: {reply.error.reason}")
    mistake = keys.secret if defence.holder.holder == "server" else None
    return Deployment(ServerKeys(keys.public, selection, decryptor, mistake), grid, nodes)


def all_alike(size: int) -> NDArray[np.float64]:
    """A sensitivity (size,) that ranks nothing: where everything is encrypted, or nothing."""
    return np.ones(size)
