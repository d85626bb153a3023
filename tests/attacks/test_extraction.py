import pytest
import torch

from attacks import Budget, Knowledge, NotApplicable, Oracle, Targets, infer, inferences
from attacks.extraction import agreement
from attacks.monitor import QueryLog, calibrate, false_alarms
from tests.attacks.test_inversion import fitted

KNOW = Knowledge((64,), 10, value_range=(0.0, 1.0))


@pytest.fixture(scope="module")
def target(digits):
    return fitted(digits[0][:900], digits[1][:900])


def test_wins_its_sanity_case():
    case = inferences()["model_extraction"].sanity()
    assert case.won(infer("model_extraction", case.source, case.knowledge, targets=case.targets, budget=case.budget))


@pytest.mark.parametrize(("access", "budget", "least"), [("confidences", 1500, 0.9), ("label_only", 4000, 0.7)])
def test_the_stolen_model_agrees_on_digits_that_nobody_asked_about(digits, target, access, budget, least):
    unseen = digits[0][900:]
    oracle = Oracle(target, num_classes=10, access=access, budget=budget)
    claim = infer("model_extraction", oracle, KNOW, targets=Targets())
    assert agreement(claim.model, unseen, target(unseen).argmax(1)) >= least
    assert claim.queries == oracle.queries == budget
    assert oracle.refused == 0


def test_asks_no_more_than_it_is_told_and_not_for_less_than_it_takes(target):
    oracle = Oracle(target, num_classes=10)
    assert infer("model_extraction", oracle, KNOW, targets=Targets(), budget=Budget(iterations=101)).queries == 101
    with pytest.raises(NotApplicable, match=r"10 queries or more \(this budget leaves 9\)"):
        infer("model_extraction", Oracle(target, num_classes=10, budget=9), KNOW, targets=Targets())


def honest_log(target, images, callers, seed, each=20):
    """Callers who ask about some images each, drawn without replacement, through the same service."""
    draw, logs = torch.Generator().manual_seed(seed), []
    for _ in range(callers):
        logs.append(QueryLog())
        service = Oracle(target, num_classes=10, watch=logs[-1].record)
        service.labels(images[torch.randperm(len(images), generator=draw)[: each // 2 + len(logs) % (each // 2)]])
    return logs


def test_attacks_sound_alarms_that_honest_callers_seldom_do(digits, target):
    images = digits[0][900:]
    monitor = calibrate(honest_log(target, images[:400], 100, 0), 0.06)
    rate, (low, high) = false_alarms(monitor, honest_log(target, images[400:], 200, 1))
    assert low <= rate <= high
    assert rate < 0.2
    sounded = {}
    for name, access in (("model_inversion_confidences", "confidences"), ("model_inversion_labels", "label_only")):
        log = QueryLog()
        oracle = Oracle(target, num_classes=10, access=access, watch=log.record)
        infer(name, oracle, KNOW, targets=Targets(labels=torch.arange(10)))
        assert len(log) == oracle.queries
        sounded[name] = monitor.alarms(log)
    assert all(any(alarms.values()) for alarms in sounded.values())
    assert sounded["model_inversion_confidences"]["volume"]


def test_an_empty_log_sounds_nothing_and_too_few_callers_calibrate_nothing(digits, target):
    logs = honest_log(target, digits[0], 30, 0)
    assert not any(calibrate(logs, 0.1).alarms(QueryLog()).values())
    with pytest.raises(ValueError, match=r"30 honest callers: a rate of 0\.01 over 3 signals needs 300"):
        calibrate(logs, 0.01)
    with pytest.raises(ValueError, match="no honest callers"):
        false_alarms(calibrate(logs, 0.1), [])


def test_near_duplicates_and_the_boundary_are_what_they_say(digits, target):
    monitor = calibrate(honest_log(target, digits[0], 30, 0), 0.1)
    log = QueryLog()
    image = digits[0][:1]
    log.record(torch.cat([image] * 10), torch.tensor([[0.5, 0.5, *[0.0] * 8]]).repeat(10, 1))
    signals = monitor.signals(log)
    assert (signals["near_duplicates"], signals["boundary_probing"], signals["volume"]) == (0.9, 1.0, 10.0)
