"""Lies and collusion, as a scenario asks for them: which of them a protocol allows, and who tells them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord

from attacks.surgery import plant_silence
from attacks.view import Knowledge
from crypto.secagg.lies import LIES
from fedsim.names import nearest
from strategies.base import Stage
from strategies.differencing import CLAIM, DIFFERENCING, DifferencingMean
from strategies.federated import FederatedMean
from strategies.flower_lies import FLOWER_LIES
from strategies.flower_server import FlowerMean
from strategies.homomorphic import Homomorphic
from strategies.lying_server import UNTOLD, LyingMean, Mute
from strategies.refused import OWN
from strategies.secagg_server import SecureFederatedMean
from strategies.secure_aggregation import FLOWER, SecureAggregation

if TYPE_CHECKING:
    from fedsim.experiment import Experiment
    from fedsim.scenario import Scenario
    from fedsim.threat import Adversary

LIAR = "malicious_protocol"
"""The kind of adversary that lies in the protocol."""
CLAIMS = {**{name: kind.claim for name, kind in LIES.items() if name not in UNTOLD}, DIFFERENCING: CLAIM}
"""What each lie that can be told in a run does, by its name."""
WITH_COLLUDERS = ("sybils", "sybil_ring")
"""The lies that clients help with, by telling all that they hold."""


def adversary_problems(adversary: "Adversary") -> list[str]:
    """What is wrong with the lie by itself."""
    lie = adversary.lie
    if (adversary.kind == LIAR) != (lie is not None):
        return [f"kind = {adversary.kind!r}, lie = {lie!r}: {LIAR!r} tells a lie, and no other kind does; set both"]
    if lie is None:
        return []
    if lie in UNTOLD:
        return [f"lie = {lie!r}: cannot be told by {LIAR!r}: {UNTOLD[lie]}"]
    if lie not in CLAIMS:
        return [f"lie = {lie!r}: unknown; {nearest(lie, CLAIMS)}"]
    return []


def collusion_problems(scenario: "Scenario") -> list[str]:
    """Why this scenario's clients cannot collude in its protocol."""
    colluders = scenario.adversary.colluders
    if not colluders > 0:
        return []
    if colluders >= scenario.federation.clients:
        return [f"adversary.colluders = {colluders}: leaves no victim among {scenario.federation.clients} clients"]
    return [
        f"adversary.colluders = {colluders}: what they add to {defence.kind} is not modelled here; set 0, or "
        "take another profile, or keys = 'trusted_decryptor'"
        for defence in scenario.protocol
        if (isinstance(defence, Homomorphic) and defence.keys == "threshold")
        or (isinstance(defence, SecureAggregation) and defence.profile == FLOWER)
    ]


def lie_problems(scenario: "Scenario") -> list[str]:
    """Why this scenario's lie cannot be told in its protocol."""
    adversary, clients = scenario.adversary, scenario.federation.clients
    if adversary.across_rounds and (scenario.federation.rounds < 2 or not _sums(scenario)):
        return ["adversary.across_rounds = True: needs two rounds, and a protocol that opens their sums; set False"]
    aggregation = next((d for d in scenario.protocol if isinstance(d, SecureAggregation)), None)
    if adversary.lie is None:
        return []
    if aggregation is None or aggregation.mode != "protocol":
        return [f"adversary.kind = {LIAR!r}: lies in secure aggregation; add SecureAggregation(mode='protocol')"]
    problems = []
    if adversary.victim >= clients - adversary.colluders:
        problems.append(
            f"adversary.victim = {adversary.victim}: must be one of the honest clients, from 0 to "
            f"{clients - adversary.colluders - 1}"
        )
    if (adversary.lie in WITH_COLLUDERS) != (adversary.colluders > 0):
        problems.append(
            f"adversary.colluders = {adversary.colluders}: {' and '.join(WITH_COLLUDERS)} are the lies that need "
            "colluders, and the only ones that use them"
        )
    degree = aggregation.neighbours or clients - 1
    if adversary.lie == "sybil_ring" and adversary.colluders < degree:
        problems.append(
            f"adversary.colluders = {adversary.colluders}: the victim has {degree} neighbours, and all of them must "
            "collude; add colluders or set neighbours"
        )
    if adversary.lie == DIFFERENCING:
        asked = scenario.federation.cohort or clients
        problems += [f"a round without the victim: {p}" for p in aggregation.cohort_problems(asked - 1)]
        if scenario.federation.rounds < 2:
            problems.append("federation.rounds = 1: two sums are needed to subtract one; run at least 2 rounds")
    elif LIES[adversary.lie].rounds > scenario.federation.rounds:
        problems.append(f"federation.rounds = 1: {adversary.lie!r} takes {LIES[adversary.lie].rounds} rounds")
    if aggregation.profile == FLOWER and adversary.lie not in FLOWER_LIES:
        problems.append(f"adversary.lie = {adversary.lie!r}: against {FLOWER!r} choose from {', '.join(FLOWER_LIES)}")
    return problems


def _sums(scenario: "Scenario") -> bool:
    return any(defence.stage == Stage.HIDE for defence in scenario.protocol)


def server_of(scenario: "Scenario", aggregation: SecureAggregation, mute: Mute, **common: Any) -> FederatedMean:
    """The server's half of secure aggregation: the honest one, a liar, or Flower's own; ``mute`` as LyingMean's."""
    lie, victim = scenario.adversary.lie, scenario.adversary.victim
    if aggregation.profile == FLOWER:
        return FlowerMean(lie=lie, victim=victim, **common)
    if lie is None:
        return SecureFederatedMean(**common)
    if lie == DIFFERENCING:
        return DifferencingMean(victim=victim, **common)
    clients = scenario.federation.clients
    colluders = range(clients - scenario.adversary.colluders, clients)
    return LyingMean(lie=lie, victim=victim, colluders=colluders, mute=mute, **common)


def muting(experiment: "Experiment") -> Mute:
    """Makes of a model, for clients of this experiment, one that answers with zeros in as many parameters as may be."""

    def mute(arrays: ArrayRecord) -> tuple[ArrayRecord, tuple[str, ...]]:
        model, dataset = experiment.initial_model(), experiment.dataset
        model.load_state_dict(arrays.to_torch_state_dict())
        know = Knowledge(dataset.input_shape, dataset.num_classes, loss=experiment.loss_name)
        muted = plant_silence(model, know)
        return ArrayRecord(dict(muted.model.state_dict())), tuple(muted.planted["silent"])

    return mute


def lies_told(strategy: FederatedMean) -> dict[str, Any]:
    """The lie and what came of it, for the evidence; empty for an honest server."""
    return strategy.evidence() if isinstance(strategy, LyingMean | DifferencingMean | FlowerMean) else {}


def who_stopped(history: Sequence[Mapping[str, Any]], round: int) -> str:
    """Which errors of which clients stopped the lie of ``round``, or by which of their own it came to nothing; empty
    where none was told, or it ended in another way."""
    came_of_it = next((str(row.get("lie") or "") for row in history if row["round"] == round), "")
    if came_of_it.startswith("stopped by"):
        return f"the lie was {came_of_it.split(': ')[0]}"
    _, own, errors = came_of_it.partition(OWN)
    return f"the lie came to nothing: {own}{errors.split(': ')[0]}" if own else ""


def opening_words(scenario: "Scenario") -> str:
    """What the server does, as the threat model's first sentence."""
    adversary = scenario.adversary
    if adversary.lie is None:
        more = " It subtracts the sums of rounds whose cohorts differ." if adversary.across_rounds else ""
        return f"The server runs the protocol as agreed and is curious ({adversary.kind.replace('_', '-')}).{more}"
    return f"The server lies to read client {adversary.victim} ({adversary.lie}). {CLAIMS[adversary.lie]}"
