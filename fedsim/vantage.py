"""The view of a run that the scenario's adversary has: exactly what that party would hold, and nothing besides."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from flwr.app import ArrayRecord

from attacks import View
from attacks.view import Message, Update
from fedsim.encryption import colluded, encryption_of
from fedsim.experiment import Experiment
from fedsim.federation import Training
from fedsim.parties import EAVESDROPPER, RECIPIENT, recipient_is_client
from strategies.he_collusion import recipient_view
from strategies.he_deployment import Deployment
from strategies.he_layout import State
from strategies.he_server import BlindMean, HomomorphicMean
from strategies.ideal import SUM
from strategies.recorder import RecordingGrid
from strategies.wire import digest


@dataclass(frozen=True)
class Run:
    """A run that ended: its experiment, the record of its wire, its training, and its keys where there are any."""

    experiment: Experiment
    recorder: RecordingGrid
    training: Training
    deployment: Deployment | None = None


def adversary_view(run: Run) -> View:
    """The view of the scenario's adversary; raises HEError where a client does not hand over its key as it should."""
    return _VIEWS.get(run.experiment.scenario.adversary.kind, _server)(run)


def _server(run: Run) -> View:
    seen = run.recorder.view(run.experiment.initial_model(), run.training.opened, run.training.planted)
    return colluded(run.deployment, run.experiment.scenario, seen)


def _eavesdropper(run: Run) -> View:
    """What crossed the wire, read without a key; and the mean updates that successive models give away.

    Between the clients and a trusted adder the ideal functionality has channels that nobody else reads.
    """
    strategy = run.training.strategy
    in_clear = strategy.in_clear if isinstance(strategy, HomomorphicMean) else ()
    seen = run.recorder.view(run.experiment.initial_model(), in_clear)
    models, means = _followed(run, seen)
    messages = tuple(_without_sum(message) for message in seen.messages)
    broadcasts = {**seen.broadcasts, **models}
    return replace(seen, party=EAVESDROPPER, broadcasts=broadcasts, messages=messages, updates=(*seen.updates, *means))


def _without_sum(message: Message) -> Message:
    return replace(message, configs={name: record for name, record in message.configs.items() if name != SUM})


def _followed(run: Run, seen: View) -> tuple[dict[str, State], list[Update]]:
    """The mean update of each attacked round whose updates are hidden, from the models before and after it.

    Every client counts alike in it, since nothing on the wire tells otherwise. Where clients alone hold the model there
    is nothing to follow; nor after the last round, when no model is sent.
    """
    strategy, models, means = run.training.strategy, dict[str, State](), list[Update]()
    if strategy is None or isinstance(strategy, BlindMean):
        return models, means
    sent = {m.round: m.arrays["arrays"] for m in seen.messages if m.direction == "sent" and "arrays" in m.arrays}
    answered = {record.round: tuple(record.answered) for record in strategy.rounds}
    trained = [name for name, parameter in seen.model.named_parameters() if parameter.requires_grad]
    readable = {update.round for update in seen.updates if not update.partial}
    for round in sorted(run.experiment.scenario.attacked_rounds - readable):
        if round + 1 in sent and answered.get(round):
            before, after, clients = sent[round], sent[round + 1], answered[round]
            base, scale = digest(ArrayRecord(dict(before))), len(clients) / strategy.step_size
            models[base] = before
            total = {n: ((after[n].double() - before[n].double()) * scale).to(before[n].dtype) for n in trained}
            means.append(Update(round, None, strategy.kind, base, total, len(clients), clients=clients))
    return models, means


def _recipient(run: Run) -> View:
    """The server's view where the sums go to the server; else that of a client, the last by number."""
    scenario, strategy = run.experiment.scenario, run.training.strategy
    defence = encryption_of(scenario)
    if not recipient_is_client(scenario) or run.deployment is None or defence is None:
        return _server(run)
    if not isinstance(strategy, BlindMean):
        raise TypeError(f"{type(strategy).__name__}: hands no sums to clients")
    client = scenario.federation.clients - 1
    answered = {record.round: tuple(record.answered) for record in strategy.rounds}
    return recipient_view(
        run.recorder.view(run.experiment.initial_model()),
        run.deployment.secret_of(client),
        run.deployment.server.sealing(defence),
        strategy.unseen(0),
        {round: answered[round] for round in scenario.attacked_rounds if answered.get(round)},
        client,
    )


_VIEWS: dict[str, Callable[[Run], View]] = {EAVESDROPPER: _eavesdropper, RECIPIENT: _recipient}
"""By kind of adversary; all others are the server."""
