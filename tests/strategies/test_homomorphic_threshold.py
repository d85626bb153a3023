"""Threshold keys over Flower messages, on a stand-in for openfhe (its wheel fits few systems): who can open what."""

import sys

import pytest

from crypto.he.errors import IncompatibleCiphertextsError
from fedsim import Adversary, Homomorphic
from fedsim.cells import preflight
from fedsim.report.progress import Progress
from fedsim.scenario import Cell
from fedsim.tasks import TaskError
from tests.crypto_he import openfhe_stand_in
from tests.strategies.homomorphic_runs import Run, apart, everything, experiment

SHARED = Homomorphic(keys="threshold")


@pytest.fixture(params=["stand-in", "openfhe"])
def threshold(request, monkeypatch):
    from crypto.he.threshold import open_joint

    if request.param == "stand-in":
        monkeypatch.setitem(sys.modules, "openfhe", openfhe_stand_in)
    else:
        pytest.importorskip("openfhe", reason="openfhe's wheel does not import on this system", exc_type=ImportError)
    open_joint.cache_clear()
    yield request.param
    open_joint.cache_clear()


def test_the_mean_is_the_plain_one_and_the_server_reads_the_sum_alone(threshold):
    plain = Run(experiment(weighted=True))
    shared = Run(experiment(Homomorphic(keys="threshold", max_weight=3), weighted=True))
    stated = 2 * 0.5 * shared.training.protocol["stated_error_of_a_sum"]
    assert apart(plain.state, shared.state) <= stated + 1e-6
    assert [(u.round, u.client, u.contributors) for u in shared.view.updates] == [(1, None, 4)]
    assert shared.training.protocol["secret_key_at"] == ["nobody, but a share at every client"]
    assert not shared.training.protocol["server_holds_secret_key"]
    assert any("smudging" in finding for finding in shared.training.protocol["findings"])
    assert not any("Li and Micciancio" in finding for finding in shared.training.protocol["findings"])


def test_every_client_has_a_share_of_its_own_and_none_reaches_the_server(threshold):
    run = Run(experiment(SHARED, rounds=1))
    secrets = [state.config_records["share"]["secret"] for state in run.grid.states.values()]
    assert len(set(secrets)) == 4
    assert not any(secret in everything(run.view) for secret in secrets)
    assert not any(secret in run.deployment.server.public for secret in secrets)


def test_part_of_the_update_in_clear_under_shares(threshold):
    part = Homomorphic(keys="threshold", encrypted_fraction=0.2)
    assert apart(Run(experiment()).state, Run(experiment(part)).state) < 1e-5


def test_a_sum_does_not_open_without_every_client(threshold):
    run = Run(experiment(SHARED, dropout=0.5, rounds=2))
    aborted = [row["aborted"] for row in run.training.history[1:] if row["aborted"]]
    assert aborted
    assert all(reason.startswith(IncompatibleCiphertextsError.__name__) for reason in aborted)
    assert len(run.training.opened) == 2 - len(aborted)


def test_clients_refuse_a_second_sum_of_a_round_and_one_of_too_few(threshold):
    class Again:
        """Asks the clients to open the sum of round 1 in every round."""

        def __init__(self, inner):
            self.inner = inner

        def send_and_receive(self, messages, timeout=None):
            messages = list(messages)
            for message in messages:
                if "sum" in message.content:
                    message.content["config"]["round"] = 1
            return self.inner.send_and_receive(messages, timeout=timeout)

    run = Run(experiment(SHARED, rounds=2), Again)
    assert "round 1 has been answered" in run.training.history[2]["aborted"]
    few = Run(experiment(Homomorphic(keys="threshold", minimum_cohort=3), dropout=0.4, rounds=3))
    reasons = [row["aborted"] or "" for row in few.training.history[1:]]
    assert any("CohortTooSmallError" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scheme": "bfv"}, "parameters of its own"),
        ({"preset": "ckks"}, "leave both out"),
        ({"seeded": True}, "seeded"),
    ],
)
def test_what_shares_do_not_go_with(fields, words):
    with pytest.raises(ValueError, match=words):
        experiment(Homomorphic(keys="threshold", **fields))


def test_colluders_with_shares_are_not_modelled():
    with pytest.raises(ValueError, match="colluders = 1"):
        experiment(SHARED, adversary=Adversary(colluders=1))


def test_without_openfhe_a_run_is_refused_before_it_starts(monkeypatch):
    monkeypatch.setitem(sys.modules, "openfhe", None)
    made = experiment(SHARED)
    with pytest.raises(TaskError, match="openfhe cannot be imported"):
        preflight(Cell({}, made.scenario), Progress(quiet=True))
