"""Encrypted sums and clear parts beside what they must equal. ``make known-results`` prints the table."""

import functools
import math
import statistics
from dataclasses import replace

import pytest

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


def made(seed, *protocol, clients=3, attack="analytic", **fields):
    return Experiment(
        Scenario(
            name="x",
            task={"dataset": "digits", "model": "mlp"},
            federation=Federation(clients=clients, batch_size=1, weighted=False),
            protocol=protocol,
            attacks=(Attack(name=attack, budget=fields.pop("budget", AttackBudget())),),
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


def on_exact_sums():
    """The same of the exact sum of the plain updates: ideal secure aggregation that does not round."""
    found = []
    for seed in SEEDS:
        experiment = made(seed, Homomorphic(keys="trusted_decryptor"))
        (job,) = jobs(experiment, Run(experiment).view, experiment.scenario.attacks)
        plain = Run(made(seed)).view.updates
        exact = {name: sum(update.arrays[name].double() for update in plain) for name in plain[0].arrays}
        ((seen,), know, number) = job.victims[0]
        found += figures(experiment, replace(job, victims=(((replace(seen, update=exact),), know, number),)))
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
            attack="inverting_gradients",
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
