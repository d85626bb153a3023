"""Who was trained on, whose it was, and what the others behind an update have in common."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attacks import Claim, Knowledge, Targets
from attacks.rates import TooFew, TruePositives, rates
from fedsim import bounds
from fedsim.assets.case import Asset, Case, Figure, Key, Scored, refused, share
from fedsim.guarantee import guarantee
from fedsim.held import candidates, joined, some, used
from fedsim.planting import suspects
from fedsim.seeds import torch_generator
from fedsim.truth import truth_of

BRIGHTEST = 0.8
"""Pictures brighter than this share of the public ones have the property that updates are asked about."""


def _ask_who(case: Case) -> tuple[tuple[Targets, ...], Key]:
    """Of the model: everybody who was trained on so far. Of updates: those behind each victim's."""
    experiment, most = case.experiment, case.attack.targets
    like = experiment.test_data()
    if case.model is not None:
        until = range(1, max(case.rounds) + 1)
        members = joined(used(experiment, case.history, until), like)
        if (budget := experiment.scenario.deployment.query_budget) is not None:
            most = min(budget // 2, len(like[1]) if most is None else most)
        targets, inside = candidates(experiment, members, most, case.attack.name, max(case.rounds))
        return (targets,), {"inside": [inside]}
    plant = experiment.scenario.adversary.plant
    if plant is not None and plant.asks() and plant.attack == case.attack.name and case.victims:
        targets, inside = suspects(experiment)
        return (targets,), {"inside": [inside]}
    asked, keys = [], []
    for victim in case.victims:
        members = joined(used(experiment, case.history, case.rounds, victim.clients), like)
        own = victim.label if len(victim.clients) == 1 else None
        targets, inside = candidates(experiment, members, most, case.attack.name, victim.label, client=own)
        asked.append(targets)
        keys.append(inside)
    return tuple(asked), {"inside": keys}


def _score_who(case: Case, know: Knowledge, key: Key, claims: Sequence[Claim]) -> Scored:
    """Rates over all victims' candidates; under differential privacy beside the most that any attack can have."""
    inside = torch.cat(list(key["inside"]))
    scores = torch.cat([claim.scores.cpu().double() for claim in claims])
    found = rates(scores[inside], scores[~inside])
    mu = _mu(case)
    figures: dict[str, Figure] = {
        "auc": {
            "value": found.auc.value,
            "low": found.auc.low,
            "high": found.auc.high,
            "guess": 0.5,
            "guess_name": "chance",
            "members": found.members,
            "others": found.non_members,
            "n": found.members + found.non_members,
            **({} if mu is None else {"bound": bounds.most_area(mu)}),
        }
    }
    for fpr, one in found.tpr.items():
        figures[f"tpr at {fpr:g}"] = _rate(one, fpr, mu)
    budget = case.experiment.scenario.deployment.query_budget if case.model is not None else None
    notes = () if budget is None else (f"{len(scores)} records were asked about, for the sake of {budget} queries",)
    return Scored(figures, notes=notes)


def _rate(one: TruePositives | TooFew, fpr: float, mu: float | None) -> Figure:
    if isinstance(one, TooFew):
        return refused(str(one), fpr, "chance")
    rate = {"value": one.rate.value, "low": one.rate.low, "high": one.rate.high, "guess": fpr, "guess_name": "chance"}
    return rate if mu is None else {**rate, "bound": bounds.most_true_positives(mu, fpr)}


def _mu(case: Case) -> float | None:
    """Of the Gaussian mechanism between one record and what is attacked; None without noise."""
    given = guarantee(case.experiment, case.history)
    if given is None or not given.statement.noise_multiplier:
        return None
    stated = given.statement
    return bounds.mu_of_membership(stated.noise_multiplier, stated.releases, stated.unit)


def _ask_whose(case: Case) -> tuple[tuple[Targets, ...], Key]:
    holders = sorted({o.client for o in case.observations if o.client is not None})
    held = used(case.experiment, case.history, case.rounds, holders)
    draw = torch_generator(case.experiment.seed, "candidates", case.attack.name)
    held = {client: some(records, case.attack.targets, draw) for client, records in held.items()}
    inputs, labels = joined(held, case.experiment.test_data())
    owners = torch.cat([torch.full((len(y),), holders.index(c)) for c, (_, y) in held.items()] or [torch.zeros(0)])
    order = torch.randperm(len(labels), generator=draw)
    return (Targets(inputs[order], labels[order]),), {"owners": owners.long()[order]}


def _score_whose(case: Case, know: Knowledge, key: Key, claims: Sequence[Claim]) -> Scored:
    owners: Tensor = key["owners"]
    largest = float(owners.bincount().max()) / len(owners)
    return Scored({"right": share(claims[0].scores.argmax(1).cpu() == owners, largest, "the client with most")})


def _ask_property(case: Case) -> tuple[tuple[Targets, ...], Key]:
    experiment = case.experiment
    edge = _edge(experiment.public_data()[0])
    truth = []
    for seen in case.observations:
        clients = (seen.client,) if seen.client is not None else case.victims[0].clients if case.victims else ()
        behind = truth_of(experiment, seen.round or 0, *clients).inputs
        truth.append(bool((_brightness(behind) > edge).any()))
    return (Targets(holds=_brightness(experiment.public_data()[0]) > edge),), {"holds": torch.tensor(truth)}


def _score_property(case: Case, know: Knowledge, key: Key, claims: Sequence[Claim]) -> Scored:
    holds, scores = key["holds"], claims[0].scores.cpu().double()
    found = rates(scores[holds], scores[~holds], ())
    auc = {"value": found.auc.value, "low": found.auc.low, "high": found.auc.high, "guess": 0.5, "guess_name": "chance"}
    note = f"the property: a mean input above {BRIGHTEST:.0%} of the public ones"
    return Scored({"auc": {**auc, "n": len(holds)}}, notes=(note,))


def _brightness(inputs: Tensor) -> Tensor:
    return inputs.float().flatten(1).mean(1)


def _edge(public: Tensor) -> float:
    return float(_brightness(public).quantile(BRIGHTEST)) if len(public) else math.inf


MEMBERSHIP = Asset("membership", "auc", _ask_who, _score_who)
SOURCE = Asset("source", "right", _ask_whose, _score_whose)
PROPERTY = Asset("property", "auc", _ask_property, _score_property)
