"""The audit: sound mechanisms keep their claim, and each way to break one is seen."""

import math
import pickle
from dataclasses import dataclass

import pytest
import torch
from pydantic import ValidationError

from fedsim.audit import ClaimExceeded, audit, audit_run
from fedsim.bounds import epsilon_of, mu_of
from fedsim.canaries import Canaries, one_run, one_shot
from fedsim.experiment import Experiment
from fedsim.privacy import epsilons
from fedsim.scenario import Adversary, Attack, Federation, Scenario, Task
from strategies.base import ClientContext
from strategies.client_dp import ClientDP

DELTA = 1e-5
LIKE = {"weight": torch.zeros(40, 50), "bias": torch.zeros(40), "steps": torch.tensor(3)}


def audited(defence, z=1.0, releases=1, trials=300, seed=11):
    claimed, _ = epsilons(z, releases, DELTA)
    return audit(defence, LIKE, claimed=claimed, delta=DELTA, releases=releases, seed=seed, trials=trials)


def test_a_gaussian_is_measured_at_about_its_epsilon():
    canaries, generator = Canaries(400, 20_000, 5), torch.Generator().manual_seed(6)
    total = canaries.total()
    noise = torch.randn(2, 20_000, generator=generator, dtype=torch.float64) * torch.tensor([[1.0], [2.0]])
    found = canaries.alignments(total + noise)
    for sigma, alignment in zip((1.0, 2.0), found.T, strict=True):
        estimate = one_shot(alignment, 20_000, DELTA)
        assert estimate.mu == pytest.approx(1 / sigma, abs=0.15)
        assert estimate.low < epsilon_of(1 / sigma, DELTA) < estimate.ceiling


def test_canaries_are_the_same_each_time_and_point_all_ways():
    canaries = Canaries(150, 64, 3)
    rows = torch.cat(list(canaries))
    assert torch.equal(rows, torch.cat(list(canaries)))
    assert rows.shape == (150, 64)
    assert torch.allclose(rows.norm(dim=1), torch.ones(150), atol=1e-6)
    assert torch.allclose(canaries.total(), rows.double().sum(0))
    absent = canaries.alignments(torch.ones(1, 64))
    assert abs(float(absent.mean())) < 0.3
    assert float(absent.std()) == pytest.approx(1, abs=0.2)


def test_the_one_run_bound_at_guesses_without_a_mistake_is_the_binomials():
    coins = torch.arange(200) < 100
    found = one_run(coins.double(), coins, 1e-12)
    each = (0.05 / 3) ** (1 / 200)
    assert found.low == pytest.approx(math.log(each / (1 - each)), abs=2e-3)
    assert found.low == found.ceiling


def test_the_one_run_bound_stays_below_the_truth():
    above = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        coins = torch.rand(200, generator=generator) < 0.5
        answers = coins ^ (torch.rand(200, generator=generator) < 1 / (1 + math.e))  # randomised response at epsilon 1
        above += one_run(answers + 0.01 * torch.rand(200, generator=generator), coins, 1e-9).low > 1.0
    assert above <= 5


@pytest.mark.parametrize("level", ["client", "example"])
@pytest.mark.parametrize(("z", "releases"), [(1.0, 1), (2.0, 3)])
def test_a_sound_defence_keeps_its_claim(level, z, releases):
    trials = 300 if level == "client" else 120
    found = audited(ClientDP(clip=2.0, noise_multiplier=z, level=level), z, releases, trials).check()
    assert found.exceeded is None
    assert found.estimate.mu == pytest.approx(mu_of(z, releases), abs=4 / math.sqrt(trials))
    assert found.bound.low <= found.claimed
    assert found.as_dict()["status"] == "done"


@dataclass(frozen=True)
class Unclipped(ClientDP):
    def protect(self, update, context):
        return ClientDP(clip=1e6, noise_multiplier=self.noise_multiplier * self.clip / 1e6).protect(update, context)


@dataclass(frozen=True)
class VarianceForDeviation(ClientDP):
    def protect(self, update, context):
        weaker = ClientDP(clip=self.clip, noise_multiplier=self.noise_multiplier**2)
        return weaker.protect(update, context)


@dataclass(frozen=True)
class SameNoiseEachRound(ClientDP):
    def protect(self, update, context):
        again = ClientContext(1, context.client, torch.Generator().manual_seed(context.client), context.evidence)
        return super().protect(update, again)


@pytest.mark.parametrize(
    ("broken", "z", "releases"), [(Unclipped, 1.0, 1), (VarianceForDeviation, 0.4, 1), (SameNoiseEachRound, 2.0, 4)]
)
def test_each_broken_defence_fails_loudly(broken, z, releases):
    found = audited(broken(noise_multiplier=z), z, releases)
    with pytest.raises(ClaimExceeded, match="epsilon claimed = .* broken; trust no figure") as caught:
        found.check()
    assert found.as_dict()["status"] == "failed"
    assert "claimed" in found.as_dict()["cause"]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.low, again.claimed) == (caught.value.low, caught.value.claimed)


def test_without_noise_nothing_is_claimed_and_nothing_denied():
    found = audited(ClientDP(noise_multiplier=0.0), 0.0, trials=30)
    assert found.claimed is None
    assert found.check().estimate.epsilon == pytest.approx(found.estimate.ceiling, rel=0.01)


def scenario(protocol):
    return Scenario(
        name="audited",
        task=Task(dataset="digits", model="softmax"),
        federation=Federation(algorithm="fedavg", clients=3, rounds=2, batch_size=8),
        adversary=Adversary(),
        protocol=protocol,
        attacks=[Attack(name="prior")],
        seeds=(4,),
    )


def test_an_audit_of_what_claims_no_epsilon_is_refused_and_one_of_some_protocols_leaves_the_others_out():
    with pytest.raises(ValidationError, match=r"audit = True: .* no protocol here has any; add ClientDP"):
        Scenario(name="a", audit=True)
    with pytest.raises(ValidationError, match="audit = True"):
        Scenario(name="a", audit=True, compare={"federation.batch_size": {"1": 1, "2": 2}})
    some = Scenario(name="a", audit=True, compare={"protocol": {"none": [], "DP": [ClientDP(noise_multiplier=1.0)]}})
    assert [cell.scenario.audit for cell in some.cells()] == [None, True]


def test_a_cell_is_audited_by_its_own_protocol_and_rounds():
    history = [{"round": 0}, *({"round": r, "answered": [0, 1, 2], "failed": {}} for r in (1, 2))]
    experiment = Experiment(scenario([ClientDP(clip=1.0, noise_multiplier=1.5)]))
    found = audit_run(experiment, history, trials=200)
    assert (found.releases, found.dimension, found.unit) == (2, 650, "client")
    assert found.claimed == pytest.approx(epsilon_of(mu_of(1.5, 2), DELTA), rel=1e-2)
    assert found.check() == audit_run(experiment, history, trials=200)
    assert audit_run(Experiment(scenario([])), history) is None


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="releases = 0"):
        audit(ClientDP(), LIKE, claimed=1.0, delta=DELTA, releases=0, seed=0)
    with pytest.raises(ValueError, match="at least two trials"):
        one_run(torch.zeros(1), torch.zeros(1), DELTA)
    with pytest.raises(ValueError, match="need a canary"):
        Canaries(0, 10, 0)
