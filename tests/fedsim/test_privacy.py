"""Accounting against published values, the exact Gaussian trade-off, and the words around the number."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from fedsim import Federation, Homomorphic, Scenario, SecureAggregation
from fedsim.experiment import Experiment
from fedsim.guarantee import guarantee
from fedsim.privacy import PLD_LIMIT, epsilons, statement, touches_per_round
from strategies.client_dp import ClientDP


def made(defence=None, **counts):
    asked = {"rounds": 1, "participations": 1, "units": 100, "sampling": "every client in every round"}
    return statement(defence or ClientDP(), **{**asked, **counts})


def exact_delta(epsilon, mu):
    """Balle and Wang 2018, theorem 8; Dong, Roth and Su 2019, corollary 2.13."""
    return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)


def test_a_hundred_releases_at_five():
    pld, rdp = epsilons(5.0, 100, 1e-5)
    assert pld == pytest.approx(9.997, abs=5e-4)
    assert rdp == pytest.approx(10.73, abs=5e-3)


@pytest.mark.parametrize(("sigma", "epsilon"), [(0.5, 10.0), (1.0, 4.38), (2.0, 1.99)])
def test_one_release(sigma, epsilon):
    assert epsilons(sigma, 1, 1e-5)[0] == pytest.approx(epsilon, rel=5e-3)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 50.0), st.integers(1, 500), st.sampled_from([1e-3, 1e-5, 1e-8]))
def test_the_headline_is_at_most_renyi_and_at_least_exact(z, releases, delta):
    pld, rdp = epsilons(z, releases, delta)
    assert 0 <= pld <= rdp
    mu = math.sqrt(releases) / z
    if 0 < pld < 500:
        assert exact_delta(pld, mu) <= delta * (1 + 1e-6)
        assert exact_delta(pld * (1 - 1e-3), mu) > delta


@pytest.mark.parametrize("z", [1e-4, 1e-3, 1e-2, 1e-1])
def test_hardly_any_noise_gives_a_huge_number_not_a_failure(z):
    pld, rdp = epsilons(z, 20, 1e-5)
    mu = math.sqrt(20) / z
    assert mu**2 / 2 < pld < mu**2 / 2 + 6 * mu
    assert pld <= rdp


def test_the_two_methods_meet():
    below, above = (epsilons(1 / mu, 1, 1e-5)[0] for mu in (PLD_LIMIT, PLD_LIMIT * (1 + 1e-9)))
    assert below == pytest.approx(above, rel=1e-3)


def test_epsilon_falls_with_noise_and_grows_with_releases():
    by_noise = [epsilons(z, 10, 1e-5)[0] for z in (0.1, 0.5, 1.0, 2.0, 5.0)]
    by_releases = [epsilons(1.0, n, 1e-5)[0] for n in (0, 1, 2, 10, 100)]
    assert by_noise == sorted(by_noise, reverse=True)
    assert by_releases == sorted(by_releases)
    assert by_releases[0] == 0.0


def test_replace_one_doubles_the_sensitivity_and_agrees_with_the_librarys_own_relation():
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    library = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    library.compose(dp_accounting.GaussianDpEvent(3.0), 10)
    assert epsilons(3.0, 10, 1e-5, "replace_one")[0] == pytest.approx(library.get_epsilon(1e-5), rel=1e-3)
    assert epsilons(3.0, 10, 1e-5, "replace_one") == epsilons(1.5, 10, 1e-5)


def test_the_statement_is_about_the_server_and_claims_no_amplification():
    said = made(rounds=10, participations=4, sampling="4 of 10 clients a round, without replacement")
    assert said.releases == 4
    assert said.epsilon == pytest.approx(epsilons(1.0, 4, 1e-5)[0])
    assert said.epsilon_one_release == pytest.approx(4.377, abs=1e-3)
    assert said.epsilon_one_release < said.epsilon < said.epsilon_replace_one
    assert said.epsilon <= said.epsilon_rdp
    assert said.unit == "client"
    assert said.amplification.startswith("none")
    assert said.observer.startswith("the server")
    assert "zero-out" in said.relation
    assert "PLD" in said.accountant
    assert "num-examples" in said.not_covered
    assert "epsilon" in str(said)


def test_a_clients_whole_update_is_one_release_however_long_it_trains():
    assert made(touches=7).releases == 1


def test_an_example_is_released_in_every_step_that_it_enters():
    defence = ClientDP(level="example", noise_multiplier=2.0)
    said = made(defence, rounds=5, participations=3, touches=4)
    assert (said.unit, said.releases) == ("example", 12)
    assert said.epsilon == pytest.approx(epsilons(2.0, 12, 1e-5)[0])


@pytest.mark.parametrize(
    ("epochs", "steps", "per_epoch", "touches"), [(3, None, 10, 3), (1, 5, 10, 1), (1, 10, 10, 1), (1, 11, 10, 2)]
)
def test_an_example_enters_one_step_an_epoch(epochs, steps, per_epoch, touches):
    assert touches_per_round(local_epochs=epochs, local_steps=steps, steps_per_epoch=per_epoch) == touches


def test_no_noise_means_no_epsilon():
    said = made(ClientDP(noise_multiplier=0.0))
    assert (said.epsilon, said.epsilon_rdp, said.epsilon_one_release, said.epsilon_replace_one) == (None,) * 4
    assert "no finite epsilon" in str(said)


def test_a_client_that_never_answered_lost_nothing():
    assert made(participations=0).epsilon == 0.0


def test_the_statement_warns_of_what_weakens_it():
    cautions = " ".join(made(ClientDP(delta=0.1), units=10).cautions)
    assert "delta = 0.1 is not below 1/10" in cautions
    assert "seed" in cautions
    assert "seed" not in " ".join(made(ClientDP(noise_source="os")).cautions)


def test_the_statement_is_json():
    assert json.loads(json.dumps(dataclasses.asdict(made())))["unit"] == "client"


@pytest.mark.parametrize("counts", [{"participations": 2}, {"participations": -1}, {"units": 0}, {"touches": -1}])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match=f"{next(iter(counts))} = "):
        made(**counts)


def test_importing_the_module_does_not_import_the_accountant():
    code = "import sys, fedsim.privacy; sys.exit('dp_accounting' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def cell_of(**federation):
    return Experiment(
        Scenario(name="x", federation=Federation(clients=3, **federation), protocol=[ClientDP(noise_multiplier=0.5)])
    )


def test_a_cell_that_released_nothing_states_no_epsilon():
    made = cell_of(dropout=0.6)
    assert guarantee(made, [{"round": 0}]) is None
    assert guarantee(made, [{"round": 0}, {"round": 1, "answered": [], "dropped": [0, 1, 2], "failed": {}}]) is None


@pytest.mark.parametrize(
    ("defences", "against"),
    [
        ([], "the server, which reads every client's update"),
        ([SecureAggregation(clip=4.0)], "should its masks fail"),
        ([Homomorphic(keys="trusted_decryptor")], "should its ciphertext be opened"),
        ([Homomorphic(keys="server_holds_key")], "the server, which reads every client's update"),
        ([Homomorphic(encrypted_fraction=0.5)], "the server, which reads every client's update"),
    ],
)
def test_the_observer_is_no_reader_of_what_is_hidden_from_it(defences, against):
    for level in ("client", "example"):
        noise = ClientDP(noise_multiplier=0.5, level=level)
        asked = Scenario(name="x", federation=Federation(clients=3), protocol=[noise, *defences])
        given = guarantee(Experiment(asked), [{"round": 0}, {"round": 1, "answered": [0, 1, 2]}])
        assert given.statement.observer.endswith(against)


def test_an_update_that_was_refused_was_released_all_the_same():
    made = cell_of(rounds=2)
    history = [
        {"round": 0},
        {"round": 1, "answered": [0, 1], "failed": {"2": "its update is not finite in 0.weight"}},
        {"round": 2, "answered": [0], "failed": {"1": "its update is not finite", "2": "its update is not finite"}},
    ]
    only_refused = [{"round": 1, "answered": [], "failed": {"2": "its update is not finite"}}]
    assert guarantee(made, history).statement.participations == 2
    assert guarantee(made, only_refused).statement.epsilon == pytest.approx(10.0, rel=5e-3)
