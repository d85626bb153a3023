"""Encrypted sums and clear parts beside what they must equal. ``make known-results`` prints the table."""

import functools
import math
import statistics
from dataclasses import replace

import pytest
import torch

from attacks import NotApplicable, reconstructions
from attacks.metrics import PSNR_CAP
from fedsim import Adversary, Attack, AttackBudget, Federation, Homomorphic, Scenario, SecureAggregation
from fedsim.assess import jobs, perform
from fedsim.experiment import Experiment
from fedsim.report.plots import CEILING
from fedsim.truth import truth_of
from tests.known_results.ground import matched, row
from tests.strategies.homomorphic_runs import Run

SEEDS = range(10)
CLIP, BITS = 4.0, 16


def made(seed, *protocol, clients=3, attacks=("analytic",), **fields):
    budget, local = fields.pop("budget", AttackBudget()), fields.pop("local", {})
    return Experiment(
        Scenario(
            name="x",
            task={"dataset": "digits", "model": "mlp"},
            federation=Federation(clients=clients, batch_size=1, weighted=False, **local),
            protocol=protocol,
            attacks=tuple(Attack(name=name, budget=budget) for name in attacks),
            seeds=(seed,),
            **fields,
        )
    )


def figures(experiment, job):
    """Decibels of each example behind a job's only victim, as the report caps them."""
    (claim,) = perform(job).answers
    truth = truth_of(experiment, 1, *job.whom[0].clients)
    return matched(claim, truth.inputs).clamp(max=PSNR_CAP).tolist()


def visible(found):
    """The figures up to where two 8-bit pictures no longer differ."""
    return [min(figure, CEILING) for figure in found]


@functools.cache
def on_sums(*protocol):
    """What ``analytic`` gets from the sum of three clients, over all seeds."""
    found = []
    for seed in SEEDS:
        experiment = made(seed, *protocol)
        (job,) = jobs(experiment, Run(experiment).view, experiment.scenario.attacks)
        found += figures(experiment, job)
    return found


def unrounded(job, seed, dtype=torch.float64, **fields):
    """``job`` on the exact sum of the plain updates: ideal secure aggregation that does not round."""
    ((seen,), know, number) = job.victims[0]
    plain = Run(made(seed, **fields)).view.updates
    exact = {name: sum(update.arrays[name].double() for update in plain).to(dtype) for name in plain[0].arrays}
    return replace(job, victims=(((replace(seen, update=exact),), know, number),))


def on_exact_sums():
    """The same of the exact sum of the plain updates: ideal secure aggregation that does not round."""
    found = []
    for seed in SEEDS:
        experiment = made(seed, Homomorphic(keys="trusted_decryptor"))
        (job,) = jobs(experiment, Run(experiment).view, experiment.scenario.attacks)
        found += figures(experiment, unrounded(job, seed))
    return found


@pytest.mark.slow
def test_the_decrypted_sum_gives_what_ideal_secure_aggregation_gives_with_the_same_rounding():
    ideal = on_sums(SecureAggregation(clip=CLIP, bits=BITS, mode="ideal"))
    encrypted = on_sums(Homomorphic(scheme="bfv", keys="trusted_decryptor", clip=CLIP, bits=BITS))
    row("analytic on the sum of 3, ideal secure aggregation, 16 bits within 4", ideal, "")
    row("the same, BFV, 16 bits within 4", encrypted, "as ideal, within 2 dB")
    # Both round at random, with the same step: the noise differs, not its size.
    assert abs(statistics.median(ideal) - statistics.median(encrypted)) < 2
    rebuilt = [sum(figure > 30 for figure in figures) for figures in (ideal, encrypted)]
    assert abs(rebuilt[0] - rebuilt[1]) <= 2 * math.sqrt(2 * len(ideal) / 4)  # two standard deviations of two counts


@pytest.mark.slow
def test_the_decrypted_ckks_sum_gives_what_the_exact_sum_gives():
    exact, encrypted = on_exact_sums(), on_sums(Homomorphic(keys="trusted_decryptor"))
    finest = on_sums(SecureAggregation(clip=CLIP, bits=24, mode="ideal"))
    row("analytic on the exact sum of 3", exact, "")
    row("the same, CKKS", encrypted, f"as exact, up to {CEILING:g} dB")
    row("the same, ideal secure aggregation, 24 bits within 4", finest, f"as exact, up to {CEILING:g} dB")
    assert visible(encrypted) == visible(finest) == visible(exact)
    assert min(encrypted) > max(finest)  # what is left of a difference is secure aggregation's rounding


PARTS = (0.0, 0.1, 0.3, 0.5, 0.7, 1.0)


@functools.cache
def on_clear_parts(part, keys):
    """Decibels of each seed's first client by ``inverting_gradients`` on what is in clear; None where nothing is."""
    found = []
    for seed in range(5):
        experiment = made(
            seed,
            Homomorphic(keys=keys, encrypted_fraction=part),
            attacks=("inverting_gradients",),
            budget=AttackBudget(iterations=300, restarts=1),
            adversary=Adversary(knows=("batch_size", "labels", "value_range")),
        )
        job = jobs(experiment, Run(experiment).view, experiment.scenario.attacks)[0]
        readable = bool(job.victims[0][0])
        found.append(figures(experiment, job)[0] if readable else None)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_leakage_of_the_clear_part_falls_with_the_encrypted_fraction():
    medians = {}
    for part in PARTS[:-1]:
        found = on_clear_parts(part, "clients_share_key")
        medians[part] = statistics.median(found)
        row(f"inverting_gradients, digits, {part:.0%} of coordinates encrypted by public magnitude", found, "")
    assert on_clear_parts(1.0, "clients_share_key") == [None] * 5
    assert medians[0.0] > 30 > medians[0.7]
    others = on_clear_parts(0.5, "trusted_decryptor")
    assert others == pytest.approx(on_clear_parts(0.5, "clients_share_key"), abs=1e-6)


@pytest.mark.slow
def test_the_server_and_one_client_get_what_no_protection_gives():
    plain, coalition = [], []
    for seed in SEEDS:
        for into, protocol, colluders in ((plain, (), 0), (coalition, (Homomorphic(),), 1)):
            experiment = made(seed, *protocol, adversary=Adversary(colluders=colluders))
            (job,) = jobs(experiment, Run(experiment).view, experiment.scenario.attacks)
            into += figures(experiment, job)
    row("analytic, one client, no protection", plain, "")
    bar = f"as without protection, up to {CEILING:g} dB"
    row("the same, CKKS under clients_share_key, server and one client", coalition, bar)
    assert visible(coalition) == visible(plain) == [CEILING] * len(plain)


EVERY = {
    "attacks": tuple(name for name, attack in reconstructions().items() if attack.needs.update),
    "budget": AttackBudget(iterations=20, restarts=1),
}
LOCAL = {"gradients": {}, "deltas": {"algorithm": "fedavg", "local_steps": 2}}


def answers(experiment, planned):
    """By attack: what it lacks, else its figures up to where pictures no longer differ, else its labels."""
    found = {}
    for job in planned:
        (claim,) = perform(job).answers
        if isinstance(claim, NotApplicable):
            found[job.attack] = claim.missing
        elif claim.inputs is None or not len(claim.inputs):
            found[job.attack] = None if claim.labels is None else sorted(claim.labels.tolist())
        else:
            found[job.attack] = visible(figures(experiment, job))
    return found


def differing(one, other):
    """Attacks whose answers are not the same, within a twentieth of a decibel."""
    assert one.keys() == other.keys()
    return {
        name: (mine, other[name])
        for name, mine in one.items()
        if mine != (pytest.approx(other[name], abs=0.05) if isinstance(mine, list) else other[name])
    }


@pytest.mark.slow
@pytest.mark.parametrize("updates", LOCAL)
def test_every_attack_gets_from_the_server_and_one_client_what_no_protection_gives(updates):
    found = []
    for protocol, colluders in (((), 0), ((Homomorphic(),), 1)):
        experiment = made(0, *protocol, adversary=Adversary(colluders=colluders), local=LOCAL[updates], **EVERY)
        found.append(answers(experiment, jobs(experiment, Run(experiment).view, experiment.scenario.attacks)))
    assert not differing(*found)
    assert {"analytic", "dlg", "idlg", "inverting_gradients", "fedavg_inversion", "label_counts"} <= set(found[0])


@pytest.mark.slow
@pytest.mark.parametrize("updates", LOCAL)
def test_every_attack_gets_from_the_decrypted_sum_what_the_exact_sum_gives(updates):
    fields = {"local": LOCAL[updates], **EVERY}
    experiment = made(0, Homomorphic(keys="trusted_decryptor"), **fields)
    planned = jobs(experiment, Run(experiment).view, experiment.scenario.attacks)
    exact = [unrounded(job, 0, torch.float32, **fields) for job in planned]
    assert not differing(answers(experiment, planned), answers(experiment, exact))
