"""The seam of inference attacks: each proves itself, says what is lacking, and touches nothing of the caller's."""

import copy
import random

import numpy as np
import pytest
import torch

from attacks import Knowledge, NotApplicable, Observation, Oracle, Targets, available, infer, inferences
from attacks import inference as module
from attacks.inference import Claim, InferenceNeeds, inference
from attacks.known_members import case, finished, network, people, slope


def entries():
    return [pytest.param(name, entry, id=name) for name, entry in inferences().items() if entry.sanity is not None]


def _global_generators():
    legacy = np.random.get_state()[1].tolist()  # noqa: NPY002  it is watched, not used
    return torch.get_rng_state().tolist(), legacy, random.getstate()


def _weights(source):
    if isinstance(source, Oracle):
        return [copy.deepcopy(source._model.state_dict())] if source._model is not None else []
    return [copy.deepcopy(o.model.state_dict()) for o in source]


@pytest.mark.parametrize(("name", "entry"), entries())
def test_every_attack_wins_its_own_small_case_twice_alike_and_leaves_everything_as_it_was(name, entry):
    given = entry.sanity()
    before, drawn = _weights(given.source), _global_generators()
    claim = infer(name, given.source, given.knowledge, targets=given.targets, seed=1, budget=given.budget)
    assert given.won(claim)
    assert _global_generators() == drawn
    for old, new in zip(before, _weights(given.source), strict=True):
        assert all(torch.equal(old[key], new[key]) for key in old)
    again = entry.sanity()
    same = infer(name, again.source, again.knowledge, targets=again.targets, seed=1, budget=again.budget)
    assert torch.equal(claim.scores, same.scores)


def test_both_kinds_are_listed_with_what_they_need():
    assert {"analytic", "fed_mia", "lira_online", "property_inference"} <= set(available())
    for name, entry in available().items():
        assert entry.name == name
        assert entry.paper
        assert entry.claim
        assert entry.needs.rung.startswith("L")
        assert entry.needs.works_on
        assert entry.stopped_by


def test_an_unknown_name_comes_with_the_nearest():
    with pytest.raises(KeyError, match=r"'fedmia' is unknown; nearest: \['fed_mia'"):
        infer("fedmia", (), Knowledge((4,), 2), targets=Targets())


def test_what_is_lacking_is_said_by_name():
    given, oracle = case(client=0, clients=4), finished("confidences").source
    know = given.knowledge
    with pytest.raises(NotApplicable, match="targets.client"):
        infer("fed_mia", given.source, know, targets=Targets(given.targets.inputs, given.targets.labels))
    with pytest.raises(NotApplicable, match="two others"):
        infer("fed_mia", [o for o in given.source if o.client < 2], know, targets=given.targets)
    with pytest.raises(NotApplicable, match="planted"):
        infer("active_membership", given.source, know, targets=given.targets)
    with pytest.raises(NotApplicable, match="the finished model"):
        infer("loss_membership", given.source, know, targets=given.targets)
    with pytest.raises(NotApplicable, match="updates that the server can read"):
        infer("fed_mia", oracle, know, targets=given.targets)
    with pytest.raises(NotApplicable, match="an update that the adversary can read"):
        infer("gradient_alignment_membership", (), know, targets=given.targets)
    summed = Observation(network(), slope(network(), *people(4)), "gradient", contributors=3)
    with pytest.raises(NotApplicable, match="sum over 3"):
        infer("source_inference", summed, know, targets=given.targets)
    labels = finished("label_only")
    with pytest.raises(NotApplicable, match=r"access rounded \(the model answers label_only\)"):
        infer("loss_membership", labels.source, labels.knowledge, targets=labels.targets)
    with pytest.raises(NotApplicable, match="architecture"):
        infer("lira_online", oracle, know, targets=given.targets)


def test_targets_that_contradict_each_other_are_refused():
    inputs, labels = people(6)
    seen = Observation(network(), slope(network(), inputs, labels), "gradient")
    with pytest.raises(ValueError, match="6 inputs and 5 labels"):
        infer("gradient_alignment_membership", seen, Knowledge((24,), 4), targets=Targets(inputs, labels[:5]))
    with pytest.raises(ValueError, match="the model tells 4 classes, numbered from 0"):
        infer("gradient_alignment_membership", seen, Knowledge((24,), 4), targets=Targets(inputs, labels + 4))


def test_scores_that_are_no_numbers_are_an_error(monkeypatch):
    monkeypatch.setattr(module, "_INFERENCES", {})

    told = {"paper": "none", "claim": "nothing", "cost": "closed form", "stopped_by": "everything"}

    @inference("broken", **told, needs=InferenceNeeds("L4", "updates", targets=()))
    def broken(source, knowledge, targets, generator, budget):
        return Claim(torch.tensor([float("nan")]))

    seen = Observation(network(), slope(network(), *people(4)), "gradient")
    with pytest.raises(ValueError, match="not finite"):
        infer("broken", seen, Knowledge((24,), 4), targets=Targets())
    with pytest.raises(ValueError, match="registered twice"):
        inference("analytic", **told, needs=InferenceNeeds("L4", "updates"))(broken)
