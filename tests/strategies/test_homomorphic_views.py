"""Who reads what under homomorphic aggregation: the server, with a colluder, with the sum, with a clear part."""

import numpy as np
import pytest

from attacks import NotApplicable, Reconstruction
from fedsim import Adversary, Attack, AttackBudget, Homomorphic
from fedsim.assess import jobs, perform
from fedsim.store import load_view, save_view
from fedsim.truth import truth_of
from strategies.secure_aggregation import flat
from tests.strategies.homomorphic_runs import Run, apart, everything, experiment


def test_the_server_alone_sees_ciphertexts_and_the_public_first_model():
    made = experiment(Homomorphic(), attacks=(Attack(name="analytic", rounds=(1, 2)),))
    run = Run(made)
    assert not run.view.planted
    assert not run.view.updates
    assert {m.form for m in run.view.messages if m.direction == "received"} == {"ciphertext"}
    assert [set(s) for s in run.view.broadcasts.values()] == [set(made.initial_model().state_dict())]
    later = [m for m in run.view.messages if m.round == 2 and m.direction == "sent"]
    assert {m.form for m in later} == {"ciphertext"}
    assert not any(m.metrics for m in run.view.messages)
    assert apart(run.state, dict(made.initial_model().state_dict())) > 0.01
    plain = Run(experiment())
    seen = everything(run.view)
    for update in plain.view.updates:
        assert update.arrays["1.weight"].numpy().tobytes() not in seen
    for job in jobs(made, run.view, made.scenario.attacks):
        for answer in perform(job).answers:
            assert isinstance(answer, NotApplicable)
            assert "an update that the adversary can read" in str(answer)


def test_one_colluder_undoes_a_shared_key_for_every_client():
    attacks = (Attack(name="analytic", rounds=(1, 2), victims=3),)
    fields = {"attacks": attacks, "batch_size": 1}
    plain = Run(made := experiment(**fields))
    coalition = Run(experiment(Homomorphic(), adversary=Adversary(colluders=1), **fields))
    assert [(u.round, u.client, u.contributors) for u in coalition.view.updates] == [
        (round, client, 1) for round in (1, 2) for client in range(4)
    ]
    for mine, theirs in zip(plain.view.updates, coalition.view.updates, strict=True):
        assert apart(mine.arrays, theirs.arrays) < 1e-6
        assert apart(plain.view.broadcasts[mine.base], coalition.view.broadcasts[theirs.base]) < 1e-6
    for one, other in zip(jobs(made, plain.view, attacks), jobs(made, coalition.view, attacks), strict=True):
        for a, b in zip(perform(one).answers, perform(other).answers, strict=True):
            assert isinstance(a, Reconstruction)
            assert float((a.inputs - b.inputs).abs().max()) < 1e-3


def test_a_colluder_reads_later_rounds_of_a_selectively_encrypted_weighted_mean_too():
    fields = {"attacks": (Attack(name="analytic", rounds=(3,)),), "rounds": 3, "weighted": True, "cohort": 3}
    plain = Run(experiment(**fields))
    defence = Homomorphic(encrypted_fraction=0.2, max_weight=5)
    coalition = Run(experiment(defence, adversary=Adversary(colluders=2), **fields))
    for mine, theirs in zip(plain.view.updates, coalition.view.updates, strict=True):
        assert mine.client == theirs.client
        assert apart(mine.arrays, theirs.arrays) < 1e-6


def test_a_client_that_does_not_collude_keeps_its_key():
    run = Run(experiment(Homomorphic(), adversary=Adversary(colluders=1), rounds=1))
    assert run.deployment.secret_of(3)
    with pytest.raises(ValueError, match="does not collude"):
        run.deployment.secret_of(0)


def test_the_decryptor_opens_the_sum_alone_and_the_mistaken_server_everything():
    plain = Run(experiment(rounds=1))
    total = sum(update.arrays["1.weight"] for update in plain.view.updates)
    summed = Run(experiment(Homomorphic(keys="trusted_decryptor"), rounds=1)).view.updates
    assert [(u.client, u.contributors) for u in summed] == [(None, 4)]
    assert float((summed[0].arrays["1.weight"] - total).abs().max()) < 1e-6
    each = Run(experiment(Homomorphic(keys="server_holds_key", encrypted_fraction=0.5), rounds=1)).view.updates
    assert [(u.client, u.contributors) for u in each] == [(client, 1) for client in range(4)]
    for mine, theirs in zip(plain.view.updates, each, strict=True):
        assert apart(mine.arrays, theirs.arrays) < 1e-6


def test_a_cohort_below_the_decryptors_minimum_opens_nothing():
    defence = Homomorphic(keys="trusted_decryptor", minimum_cohort=4)
    run = Run(experiment(defence, dropout=0.5, rounds=3))
    aborted = [row for row in run.training.history[1:] if row["aborted"]]
    assert aborted
    assert all("CohortTooSmallError" in row["aborted"] for row in aborted)
    assert len(run.training.opened) == 3 - len(aborted)


def test_the_clear_part_is_in_the_view_and_the_rest_is_not(tmp_path):
    made = experiment(Homomorphic(encrypted_fraction=0.1), rounds=1, model="mlp")
    run = Run(made)
    selection = run.deployment.server.selection
    assert "8,649 of 9,610 coordinates" in run.training.protocol["findings"][-1]
    assert len(selection.encrypted) == 0.1 * selection.size
    plain = {update.client: update.arrays for update in Run(experiment(rounds=1, model="mlp")).view.updates}
    save_view(tmp_path, run.view)
    for view in (run.view, load_view(tmp_path, made.initial_model())):
        assert [(update.client, update.partial) for update in view.updates] == [(client, True) for client in range(4)]
        for update in view.updates:
            held, true = flat(update.arrays), flat(plain[update.client])
            assert np.array_equal(held[selection.clear], true[selection.clear])
            assert np.isnan(held[selection.encrypted]).all()


def test_gradient_inversion_runs_on_the_clear_part_and_falls_with_the_encrypted_fraction():
    attacks = (Attack(name="dlg", budget=AttackBudget(iterations=60, restarts=2)),)
    adversary = Adversary(knows=("batch_size", "labels", "value_range"))
    error = []
    for part in (0.001, 0.95):
        defence = Homomorphic(encrypted_fraction=part)
        made = experiment(defence, attacks=attacks, adversary=adversary, model="mlp", batch_size=1, rounds=1)
        (job,) = jobs(made, Run(made).view, attacks)
        claim = perform(job).answers[0]
        error.append(float((claim.inputs - truth_of(made, 1, 0).inputs).square().mean()))
    assert error[0] < 1e-6 < 0.1 < error[1]


def test_colluders_that_leave_no_victim_are_refused():
    with pytest.raises(ValueError, match="adversary.colluders = 4: leaves no victim"):
        experiment(Homomorphic(), adversary=Adversary(colluders=4))


def test_the_evidence_tells_the_findings_and_the_bytes():
    run = Run(experiment(Homomorphic(keys="trusted_decryptor"), rounds=1, model="mlp"))
    proof = run.training.protocol
    assert any("Li and Micciancio" in finding for finding in proof["findings"])
    assert not any("in clear" in finding for finding in proof["findings"])
    assert proof["security_bits"] == 128
    assert proof["secret_key_at"] == ["decryptor"]
    assert not proof["server_holds_secret_key"]
    measured = run.grid.states[0].metric_records["evidence"]
    assert measured["homomorphic.encrypted_parameters"] == proof["encrypted_parameters"]
    assert run.grid.states[0].metric_records["cpu_seconds"]["encrypt"] > 0
