"""The truth: what the attacked clients really trained on. Only scoring opens it; no attack ever receives it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedsim.client import batches
from fedsim.experiment import Experiment

THE_SUM = -1
"""What stands in a client number's place for a sum over several clients."""


@dataclass(frozen=True)
class Victim:
    """Whose examples stand behind one observation: one client's, or those of every client in a sum."""

    round: int
    clients: tuple[int, ...]
    earlier: tuple[int, ...] = ()
    """Rounds whose sums over the same clients are attacked together with this one."""

    @property
    def label(self) -> int:
        """The client's number, or THE_SUM."""
        return self.clients[0] if len(self.clients) == 1 else THE_SUM

    @property
    def rounds(self) -> tuple["Victim", ...]:
        """The same clients, round by round."""
        return tuple(Victim(round, self.clients) for round in (*self.earlier, self.round))


@dataclass(frozen=True)
class Truth:
    """The examples behind one round's observation: ``inputs`` (B, ...), ``labels`` (B,), each example once.

    ``owners`` (B) are each example's client and its place among that client's. ``steps`` are the local steps of the
    client that made most.
    """

    round: int
    client: int
    inputs: Tensor
    labels: Tensor
    steps: int
    owners: tuple[tuple[int, int], ...] = ()
    member_rate: float | None = None
    """Where it is asked who was trained on: the share of the candidates that were."""


def truth_of(experiment: Experiment, round: int, *clients: int, earlier: tuple[int, ...] = ()) -> Truth:
    """Derive again, from the seed, which examples each client used; the truth of a sum is that of all its clients.

    With ``earlier`` also those that they used in these rounds.
    """
    inputs, labels, owners, most = [], [], [], 0
    for client in clients:
        held, theirs = experiment.client_data(client)
        federation, seed = experiment.scenario.federation, experiment.seed
        rounds = [batches(len(theirs), federation, seed, number, client) for number in (*earlier, round)]
        steps = rounds[-1]
        used = torch.cat([batch for own in rounds for batch in own]).unique()
        inputs.append(held[used])
        labels.append(theirs[used])
        owners += [(client, place) for place in range(len(used))]
        most = max(most, len(steps))
    return Truth(round, Victim(round, clients).label, torch.cat(inputs), torch.cat(labels), most, tuple(owners))
