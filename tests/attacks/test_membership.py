"""Membership and property attacks: on digits, at their limits, and the parts that they are made of."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from attacks import Budget, Knowledge, NotApplicable, Observation, Oracle, Targets, infer
from attacks.candidates import alignments, directions, local_model, losses
from attacks.known_members import case, finished, network, people, slope, trained
from attacks.membership_lira import cut_alike
from attacks.membership_model import logit_gap
from attacks.membership_updates import ascended
from attacks.rates import auc
from attacks.shadows import Recipe, membership, train_shadows
from tests.attacks.conftest import delta, gradient, mlp, noised, pick

KNOW = Knowledge((64,), 10)


def area(scores, members):
    return auc(scores[:members], scores[members:]).value


@pytest.mark.parametrize("kind", ["gradient", "delta"])
def test_alignment_tells_members_and_noise_hides_them(digits, kind):
    figures = []
    for z in (0.0, 0.3, 30.0):
        members, others = [], []
        for seed in range(900, 908):
            inputs, labels, draw = pick(digits, seed, 58)
            model = mlp(seed)
            update = gradient(model, inputs[:8], labels[:8])
            if kind == "delta":
                update = delta(model, inputs[:8], labels[:8], 0.1, 3)
            seen = Observation(model, noised(update, z, draw), kind)
            scores = infer("gradient_alignment_membership", seen, KNOW, targets=Targets(inputs, labels)).scores
            members.append(scores[:8])
            others.append(scores[8:])
        figures.append(auc(torch.cat(members), torch.cat(others)).value)
    assert figures[0] > 0.75 > figures[1] > figures[2]
    assert 0.4 < figures[2] < 0.6


def test_alignment_heeds_the_client_that_is_asked_about():
    given = case(clients=3)
    inputs, labels = given.targets.inputs[:20], given.targets.labels[:20]
    for client, first in ((0, True), (1, False)):
        asked = Targets(inputs, labels, client=client)
        scores = infer("gradient_alignment_membership", given.source, given.knowledge, targets=asked).scores
        assert (area(scores, 10) > 0.75) == first
    with pytest.raises(NotApplicable, match="client 7"):
        infer("gradient_alignment_membership", given.source, given.knowledge, targets=Targets(inputs, labels, client=7))


def test_rounds_add_up():
    few, many = case(client=0, clients=4, rounds=1), case(client=0, clients=4, rounds=6)
    one, six = (area(infer("fed_mia", c.source, c.knowledge, targets=c.targets).scores, 10) for c in (few, many))
    assert six >= one > 0.6


def test_records_that_were_never_ascended_stay_undecided():
    given = case(client=0, clients=4, ascent=ascended)
    planted = {"kind": "ascent", "rounds": {1: [0, 3]}}
    know = Knowledge((24,), 4, planted=planted)
    claim = infer("active_membership", given.source, know, targets=given.targets)
    assert claim.notes == ("18 of 20 records were never ascended",)
    assert claim.scores.nonzero()[:, 0].tolist() == [0, 3]


def test_ascent_raises_the_loss_of_its_records_in_a_copy():
    inputs, labels = people(3)
    model = trained(network(), inputs, labels, 20)
    before = copy.deepcopy(model.state_dict())
    crafted = ascended(model, inputs, labels)
    assert (
        losses(crafted, inputs, labels, "cross_entropy").mean() > losses(model, inputs, labels, "cross_entropy").mean()
    )
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert crafted.training == model.training


def test_the_source_of_a_record_shows_in_deltas_too():
    inputs, labels = people(30)
    model, seen = network(), []
    for client, (x, y) in enumerate(zip(inputs.split(10), labels.split(10), strict=True)):
        seen.append(Observation(model, delta(model, x, y, 0.5, 5), "delta", round=1, client=client + 5))
    claim = infer("source_inference", seen, Knowledge((24,), 4), targets=Targets(inputs, labels))
    assert claim.notes == ("columns are clients 5, 6, 7",)
    assert (claim.scores.argmax(1) == torch.arange(3).repeat_interleave(10)).double().mean() > 0.8


def test_directions_are_each_records_own_gradient():
    inputs, labels = people(5)
    model = network()
    found = directions(model, ["2.weight", "0.bias"], inputs, labels, "cross_entropy")
    for x, y, got in zip(inputs, labels, found, strict=True):
        alone = slope(model, x[None], y[None])
        assert torch.allclose(got, torch.cat([alone["2.weight"].flatten(), alone["0.bias"]]), atol=1e-6)
    seen = Observation(model, {n: -3 * t for n, t in slope(model, inputs[:1], labels[:1]).items()}, "delta")
    assert float(alignments(seen, inputs[:1], labels[:1], "cross_entropy")) == pytest.approx(1)
    moved = dict(local_model(seen).named_parameters())["0.bias"]
    assert torch.allclose(moved, dict(model.named_parameters())["0.bias"] + seen.update["0.bias"])


def test_log_odds_do_not_saturate_where_float32_does():
    logits = torch.tensor([[30.0, 0.0, 0.0]])
    gap = logit_gap(logits.softmax(-1), torch.tensor([0]))
    assert float(gap) == pytest.approx(30 - math.log(2), rel=1e-4)


@pytest.mark.parametrize(("decimals", "top"), [(7, 4), (2, 4), (1, 4), (7, 2)])
def test_shadows_confidences_are_cut_as_the_answers_are(decimals, top):
    full = torch.randn((50, 4), generator=torch.Generator().manual_seed(0)).softmax(1)

    def cut(confidences):
        least = confidences.topk(top, dim=-1).values[..., -1:]
        kept = confidences.masked_fill(confidences < least, 0.0)
        return kept.round(decimals=decimals) if decimals < 7 else kept

    shadow = torch.randn((3, 50, 4), generator=torch.Generator().manual_seed(1)).softmax(-1)
    assert torch.equal(cut_alike(shadow, cut(full)), cut(shadow))


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_rate_that_leaves_no_member_or_no_other_is_refused(rate):
    given = finished("confidences", ("architecture", "learning_rate", "local_batch_size", "epochs", "member_rate"))
    know = dataclasses.replace(given.knowledge, member_rate=rate)
    with pytest.raises(ValueError, match=f"member_rate = {rate}"):
        infer("lira_online", given.source, know, targets=given.targets, budget=Budget(iterations=8))


@pytest.mark.parametrize("access", ["top_k", "rounded"])
def test_lira_takes_answers_that_are_coarse(access):
    facts = ("architecture", "learning_rate", "local_batch_size", "epochs", "member_rate")
    given = finished("confidences", facts)
    cut_to = {"decimals": 2} if access == "rounded" else {}
    coarse = Oracle(given.source._model, num_classes=4, access=access, **cut_to)
    full, cut = (
        infer("lira_online", source, given.knowledge, targets=given.targets, budget=Budget(iterations=16)).scores
        for source in (given.source, coarse)
    )
    assert area(cut, 10) > 0.7
    assert torch.corrcoef(torch.stack([full, cut]))[0, 1] > 0.5


def test_copies_that_a_budget_does_not_pay_for_are_left_out():
    given = finished("label_only", ("value_range",))
    tight = Oracle(given.source._model, num_classes=4, access="label_only", budget=70)
    claim = infer("label_only_membership", tight, given.knowledge, targets=given.targets)
    assert (claim.queries, tight.refused) == (60, 0)
    assert claim.notes == ("2 of 75 noisy copies of each record were asked about",)


def test_scores_count_their_queries_and_stay_inside_a_budget():
    given = finished("label_only", ("value_range",))
    claim = infer(
        "label_only_membership", given.source, given.knowledge, targets=given.targets, budget=Budget(iterations=2)
    )
    assert claim.queries == given.source.queries == 20 * (1 + 3 * 2)
    loss = finished("confidences")
    assert infer("loss_membership", loss.source, loss.knowledge, targets=loss.targets).queries == 20


@pytest.mark.parametrize("name", ["lira_online", "lira_offline"])
def test_lira_needs_enough_shadows_and_a_trainable_kind(name):
    facts = ("architecture", "learning_rate", "local_batch_size", "epochs", "member_rate", "public", "public_labels")
    given = finished("confidences", facts)
    with pytest.raises(ValueError, match="at least 8 shadow models"):
        infer(name, given.source, given.knowledge, targets=given.targets, budget=Budget(iterations=4))


def test_shadows_are_what_training_each_alone_gives():
    inputs, labels = people(12)
    assert membership(4, 12, 3, torch.Generator().manual_seed(1)).sum(0).tolist() == [3] * 12
    member = torch.stack([torch.arange(12) < 6, torch.arange(12) >= 6])
    recipe = Recipe(epochs=30, batch_size=6, learning_rate=0.5)
    shadows = train_shadows(network(), inputs, labels, member, recipe, torch.Generator().manual_seed(2))
    start = train_shadows(network(), inputs, labels, member, Recipe(1, 6, 1e-12), torch.Generator().manual_seed(2))
    for index, mine in enumerate(member):
        alone = trained(start.model(index), inputs[mine], labels[mine], 30)
        assert torch.allclose(alone(inputs), shadows.outputs(inputs)[index], atol=1e-4)
        assert torch.allclose(shadows.model(index)(inputs), shadows.outputs(inputs)[index], atol=1e-5)


def test_shadows_refuse_what_they_cannot_train():
    inputs, labels = people(6)
    batched = nn.Sequential(nn.Linear(24, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    member, recipe, draw = torch.ones(2, 6, dtype=torch.bool), Recipe(1, 2, 0.1), torch.Generator()
    with pytest.raises(NotApplicable, match="without batch statistics"):
        train_shadows(batched, inputs, labels, member, recipe, draw)
    with pytest.raises(ValueError, match="without a single record"):
        train_shadows(network(), inputs, labels, ~member, recipe, draw)
    with pytest.raises(ValueError, match="taken = 3 of 3 models"):
        membership(3, 4, 3, draw)
    with pytest.raises(ValueError, match=r"recipe.epochs = 0"):
        Recipe(0, 1, 0.1)


def test_a_property_shows_in_deltas_and_needs_both_kinds_of_public_records():
    inputs, labels = people(120)
    holds = torch.arange(120) % 2 == 0
    inputs = inputs + 3.0 * holds[:, None] * (torch.arange(24) % 3 == 0)
    model, facts = network(), {"batch_size": 4, "public": inputs[:80], "public_labels": labels[:80]}
    seen = [
        Observation(model, delta(model, inputs[at : at + 8 : 2], labels[at : at + 8 : 2], 0.1, 2), "delta", round=at)
        for start in (80, 88, 96, 104)
        for at in (start, start + 1)
    ]
    know = Knowledge((24,), 4, learning_rate=0.1, local_steps=2, **facts)
    asked, budget = Targets(holds=holds[:80]), Budget(iterations=50)
    scores = infer("property_inference", seen, know, targets=asked, budget=budget).scores
    assert auc(scores[::2], scores[1::2]).value > 0.7
    with pytest.raises(NotApplicable, match="learning_rate"):
        infer("property_inference", seen, Knowledge((24,), 4, **facts), targets=asked, budget=budget)
    with pytest.raises(ValueError, match="constant in the public data"):
        infer("property_inference", seen, know, targets=Targets(holds=torch.ones(80)), budget=budget)
    with pytest.raises(ValueError, match="mark each of the 80"):
        infer("property_inference", seen, know, targets=Targets(holds=holds), budget=budget)


def test_answers_beyond_the_budget_end_the_attack():
    given = finished("confidences")
    tight = Oracle(network(), num_classes=4, access="confidences", budget=5)
    with pytest.raises(Exception, match="query budget exceeded"):
        infer("loss_membership", tight, given.knowledge, targets=given.targets)


@pytest.mark.parametrize(
    "name", ["loss_membership", "confidence_membership", "entropy_membership", "lira_online", "lira_offline"]
)
def test_a_model_of_many_answers_is_not_applicable(name):
    facts = ("architecture", "learning_rate", "local_batch_size", "epochs", "member_rate", "public", "public_labels")
    given = finished("confidences", facts)
    with pytest.raises(NotApplicable, match="a model that classifies"):
        infer(name, given.source, dataclasses.replace(given.knowledge, loss="next_token"), targets=given.targets)
