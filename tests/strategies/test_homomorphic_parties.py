"""What each party can attack: the server alone, an eavesdropper, whoever the decrypted sum goes to, a colluder."""

import pytest
import torch

from attacks import NotApplicable, Reconstruction, reconstructions
from fedsim import Adversary, Attack, AttackBudget, Homomorphic, SecureAggregation
from fedsim.adversary import in_words, rung
from fedsim.assess import jobs, perform
from tests.strategies.homomorphic_runs import Run, apart, experiment

MAIN_JOB = ("analytic", "dlg", "idlg", "inverting_gradients", "fedavg_inversion", "label_counts")
BUDGET = AttackBudget(iterations=2, restarts=1)
EVERY = tuple(Attack(name=name, budget=BUDGET) for name, attack in reconstructions().items() if attack.needs.update)
TOLD = Adversary(knows=("batch_size", "labels", "value_range"))
EAVESDROPPER, RECIPIENT = Adversary(kind="eavesdropper"), Adversary(kind="sum_recipient")


def refusals(run, made):
    """What each attack says that it lacks, by its name."""
    answers = {job.attack: perform(job).answers for job in jobs(made, run.view, made.scenario.attacks)}
    assert all(isinstance(answer, NotApplicable) for found in answers.values() for answer in found), answers
    return {name: {answer.missing for answer in found} for name, found in answers.items()}


@pytest.mark.parametrize("adversary", [Adversary(), EAVESDROPPER], ids=["server", "eavesdropper"])
def test_no_attack_starts_on_ciphertexts_and_each_says_what_is_missing(adversary):
    made = experiment(Homomorphic(), attacks=EVERY, adversary=adversary, rounds=2, model="mlp")
    assert set(MAIN_JOB) <= {attack.name for attack in EVERY}
    found = refusals(Run(made), made)
    assert set(found) == {attack.name for attack in EVERY}
    assert set().union(*found.values()) == {"an update that the adversary can read"}


@pytest.mark.parametrize(
    "protocol",
    [
        Homomorphic(keys="trusted_decryptor"),
        Homomorphic(keys="server_holds_key"),
        SecureAggregation(clip=4.0),
        SecureAggregation(clip=4.0, mode="ideal"),
    ],
    ids=lambda defence: getattr(defence, "keys", "") or defence.mode,
)
def test_an_eavesdropper_reads_no_update_but_what_two_models_give_away(protocol):
    attacks = (Attack(name="analytic", rounds=(1, 2)),)
    made = experiment(protocol, attacks=attacks, adversary=EAVESDROPPER)
    run = Run(made)
    assert [(u.round, u.client, u.contributors) for u in run.view.updates] == [(1, None, 4)]
    plain = Run(experiment(attacks=attacks))
    summed = sum(u.arrays["1.weight"] for u in plain.view.updates if u.round == 1)
    assert float((run.view.updates[0].arrays["1.weight"] - summed).abs().max()) < 1e-3
    assert not any("sum" in message.configs for message in run.view.messages)
    second = [job for job in jobs(made, run.view, attacks) if job.round == 2]
    assert all(isinstance(answer, NotApplicable) for job in second for answer in perform(job).answers)


def test_an_eavesdropper_without_encryption_has_all_that_the_server_has():
    attacks = (Attack(name="analytic", rounds=(1, 2)),)
    one, other = Run(experiment(attacks=attacks)), Run(experiment(attacks=attacks, adversary=EAVESDROPPER))
    assert other.view.party == "eavesdropper"
    for mine, theirs in zip(one.view.updates, other.view.updates, strict=True):
        assert (mine.round, mine.client, mine.side) == (theirs.round, theirs.client, theirs.side)
        assert apart(mine.arrays, theirs.arrays) == 0


def test_an_eavesdropper_reads_the_clear_part_whoever_holds_the_key():
    for keys in ("clients_share_key", "trusted_decryptor", "server_holds_key"):
        run = Run(experiment(Homomorphic(keys=keys, encrypted_fraction=0.3), rounds=1, adversary=EAVESDROPPER))
        assert [(u.client, u.partial) for u in run.view.updates] == [(client, True) for client in range(4)], keys


def others(plain, round, clients):
    return {
        name: sum(u.arrays[name] for u in plain.view.updates if u.round == round and u.client in clients)
        for name in plain.view.updates[0].arrays
    }


def test_under_a_shared_key_the_sums_go_to_each_client_which_takes_its_own_update_out():
    attacks = (Attack(name="analytic", rounds=(1, 2)),)
    plain = Run(experiment(attacks=attacks))
    run = Run(experiment(Homomorphic(), attacks=attacks, adversary=RECIPIENT))
    assert run.view.party == "a client"
    assert {message.client for message in run.view.messages} == {3}
    assert [(u.round, u.client, u.clients) for u in run.view.updates] == [(1, None, (0, 1, 2)), (2, None, (0, 1, 2))]
    for update in run.view.updates:
        assert apart(update.arrays, others(plain, update.round, (0, 1, 2))) < 1e-6
        assert (
            apart(
                run.view.broadcasts[update.base], plain.view.broadcasts[plain.view.updates[4 * update.round - 4].base]
            )
            < 1e-6
        )


def test_with_two_clients_the_recipient_reads_the_other():
    made = experiment(Homomorphic(max_weight=4), clients=2, batch_size=1, rounds=1, adversary=RECIPIENT, weighted=True)
    run = Run(made)
    assert [(u.client, u.contributors, u.clients) for u in run.view.updates] == [(0, 1, (0,))]
    plain = Run(experiment(clients=2, batch_size=1, rounds=1))
    assert apart(run.view.updates[0].arrays, plain.view.updates[0].arrays) < 1e-6


@pytest.mark.parametrize("keys", ["trusted_decryptor", "server_holds_key"])
def test_elsewhere_the_sums_go_to_the_server(keys):
    curious, recipient = (
        Run(experiment(Homomorphic(keys=keys), rounds=1, adversary=adversary)) for adversary in (Adversary(), RECIPIENT)
    )
    assert recipient.view.party == "server"
    for mine, theirs in zip(curious.view.updates, recipient.view.updates, strict=True):
        assert (mine.client, mine.contributors) == (theirs.client, theirs.contributors)


@pytest.mark.parametrize(
    ("keys", "who"),
    [("clients_share_key", "A client is curious"), ("trusted_decryptor", "The server is curious")],
)
def test_the_threat_model_says_who_gets_the_sum(keys, who):
    scenario = experiment(Homomorphic(keys=keys), adversary=RECIPIENT).scenario
    assert in_words(scenario)[0].startswith(who)
    assert rung(scenario, 1, 3) == "L3"
    assert rung(scenario, 1, 5) == "L2"
    wire = in_words(experiment(Homomorphic(keys=keys), adversary=EAVESDROPPER).scenario)
    assert "no transport encryption" in wire[0]
    assert any("holds no key" in sentence for sentence in wire)
    assert not any("The server sees every message" in sentence for sentence in wire)


@pytest.mark.parametrize(
    ("protocol", "adversary", "words"),
    [
        ([], RECIPIENT, "nobody is sent a sum alone"),
        ([Homomorphic()], Adversary(kind="eavesdropper", colluders=1), "acts alone"),
    ],
)
def test_parties_that_a_protocol_does_not_have(protocol, adversary, words):
    with pytest.raises(ValueError, match=words):
        experiment(*protocol, adversary=adversary)


def test_the_clear_part_is_attacked_in_later_rounds_too_though_no_model_is_sent():
    attacks = (Attack(name="inverting_gradients", rounds=(2,), budget=BUDGET),)
    made = experiment(Homomorphic(encrypted_fraction=0.3), attacks=attacks, model="mlp", adversary=TOLD)
    run = Run(made)
    assert {(u.round, u.partial) for u in run.view.updates} == {(2, True)}
    known, first = run.view.broadcasts[run.view.updates[0].base], made.initial_model().state_dict()
    true = Run(experiment(attacks=attacks, model="mlp")).view.updates[0]
    exact = Run(experiment(attacks=attacks, model="mlp")).view.broadcasts[true.base]
    assert 0 < apart({n: known[n] for n in exact}, exact) < apart(first, exact) + 1e-9
    for name, update in run.view.updates[0].arrays.items():
        clear = ~update.isnan()
        assert torch.allclose(known[name][clear], exact[name][clear], atol=1e-6)
        assert torch.equal(known[name][~clear], first[name][~clear])
    (job,) = jobs(made, run.view, attacks)
    assert all(isinstance(answer, Reconstruction) for answer in perform(job).answers)


def test_beside_a_clear_part_the_decryptors_sum_is_attacked_as_well():
    named = (("inverting_gradients", 2), ("analytic", 1), ("prior", 1))
    attacks = tuple(Attack(name=name, budget=BUDGET, victims=victims) for name, victims in named)
    part = Homomorphic(keys="trusted_decryptor", encrypted_fraction=0.3)
    made = experiment(part, attacks=attacks, model="mlp", adversary=TOLD)
    planned = {(job.attack, job.beside): job for job in jobs(made, Run(made).view, attacks)}
    assert [job.clients for job in planned.values()] == [(0, 1), (-1,), (0,), (-1,), (0,)]
    for which in (("inverting_gradients", False), ("analytic", True)):
        assert all(isinstance(answer, Reconstruction) for answer in perform(planned[which]).answers), which


def made_first(fields):
    return dict(experiment(**fields).initial_model().state_dict())


@pytest.mark.parametrize("keys", ["clients_share_key", "trusted_decryptor", "server_holds_key"])
@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_batchnorms_statistics_are_averaged_and_never_in_clear_beside_ciphertexts(keys, fraction):
    fields = {"model": "tests.strategies.homomorphic_runs:normalised", "batch_size": 4, "rounds": 2}
    plain = Run(experiment(**fields))
    run = Run(experiment(Homomorphic(keys=keys, encrypted_fraction=fraction), **fields))
    running = [name for name in plain.state if "running" in name]
    assert running
    assert apart({n: plain.state[n] for n in plain.state if plain.state[n].is_floating_point()}, run.state) < 1e-5
    assert apart({n: plain.state[n] for n in running}, made_first(fields)) > 0.01
    received = [m for m in run.view.messages if m.direction == "received" and m.stage.startswith("train")]
    assert not any("buffers" in message.arrays for message in received)
    if keys == "server_holds_key":
        mine, theirs = run.view.updates[0].buffers, plain.view.updates[0].buffers
        assert apart({name: theirs[name] for name in mine}, mine) < 1e-5
    elif fraction < 1:
        assert not any(update.buffers for update in run.view.updates if update.partial)
