"""Crafted models through whole federations, each figure beside its bar. ``pytest -m slow -s`` prints the table."""

import pytest

from fedsim import ClientChecks, Homomorphic, Imprint, Inconsistency, Scenario, SecureAggregation
from tests.fedsim.test_crafted import scored, trained
from tests.known_results.ground import row

WEAK = "server_chosen_parameters"
"""The profile in which masks are not bound to the model; `paper` also refuses a cohort of two."""
EXACT = SecureAggregation(bits=24, mode="ideal", profile=WEAK)
COARSE = SecureAggregation(bits=16, mode="ideal", profile=WEAK)
UNBOUND = SecureAggregation(bits=16, profile=WEAK)
ENCRYPTED = Homomorphic(keys="trusted_decryptor")
BARS = {"24-bit ideal sum": (EXACT, 100), "16-bit ideal sum": (COARSE, 60), "HE": (ENCRYPTED, 100)}


def made(plant, protocol, clients, attack, *, seed=0, batch=1, model="mlp", **options):
    return Scenario(
        name="x",
        task={"dataset": "photos", "model": model, "model_options": options},
        federation={"clients": clients, "batch_size": batch, "weighted": False},
        protocol=protocol,
        adversary={"kind": "malicious_model", "plant": plant, "victim": clients - 1},
        attacks=[{"name": attack}],
        seeds=(seed,),
    )


def inconsistent(clients, protocol, seed=0):
    """Decibels of the victim's photograph; None where the round was stopped, with what stopped it."""
    experiment, training, view, _ = trained(
        made("inconsistency", protocol, clients, "model_inconsistency", seed=seed, hidden=[32])
    )
    psnr = scored(experiment, view)[1]
    return psnr[clients - 1][0] if psnr else None, str(training.history[1]["lie"])


@pytest.mark.parametrize("clients", [2, 10, 50, 100])
@pytest.mark.parametrize("name", list(BARS))
@pytest.mark.slow
def test_inconsistency_in_a_federation(clients, name):
    protocol, bar = BARS[name]
    figures = [inconsistent(clients, [protocol], seed)[0] for seed in range(3)]
    row(f"model inconsistency in a run, photos, n = {clients}, {name} (dB)", figures, f">= {bar} dB")
    assert min(figures) >= bar


@pytest.mark.parametrize("clients", [10, 50])
@pytest.mark.slow
def test_inconsistency_against_masks_that_are_not_bound_to_the_model_and_masks_that_are(clients):
    figures = [inconsistent(clients, [UNBOUND], seed)[0] for seed in range(3)]
    row(f"the same, n = {clients}, masks, 16 bits, model not bound (dB)", figures, ">= 60 dB")
    assert min(figures) >= 60
    stopped = inconsistent(clients, [SecureAggregation()])
    assert stopped[0] is None
    assert stopped[1].startswith(f"stopped by BadSignature ({clients} of {clients} clients)")


def imprinted(seed, protocol, *, batch, plant, model="convnet", clients=10):
    """The share above 30 dB of all clients' photographs, from the sum over them; None where nothing was read."""
    experiment, _, view, _ = trained(made(plant, protocol, clients, "imprint", seed=seed, batch=batch, model=model))
    values = [value for values in scored(experiment, view)[1].values() for value in values]
    assert len(values) in (0, batch * clients)
    return sum(value > 30 for value in values) / len(values) if values else None


@pytest.mark.parametrize("jitter", [0.0, 0.01])
@pytest.mark.slow
def test_imprint_of_the_sum_of_10_clients_in_a_federation(jitter):
    # The rows are scaled so that the update of a batch of 64 fills the protocol's range of +-8 without being clipped.
    plant = Imprint(bins=1000, slope=16.0, jitter=jitter)
    ideal = SecureAggregation(clip=8.0, mode="ideal")
    figures = [imprinted(seed, [ideal], batch=64, plant=plant) for seed in range(3)]
    name = f"imprint in a run, sum of 10 x 64 photos, 1000 bins, 16 bits, turned by {jitter:g}"
    row(name, figures, f">= 0.45; theory {(1 - 1 / 1000) ** 639:.3f}")
    assert sum(figures) / 3 >= 0.45


@pytest.mark.slow
def test_checks_against_imprints_and_imprints_against_checks():
    checks, hidden = ClientChecks(architecture=False), SecureAggregation(clip=8.0, mode="ideal")
    for jitter in (0.0, 0.01, 0.03, 0.1):
        plant = Imprint(bins=256, jitter=jitter)
        free = [imprinted(seed, [hidden], batch=4, plant=plant) for seed in range(3)]
        checked = [imprinted(seed, [checks, hidden], batch=4, plant=plant) for seed in range(3)]
        row(
            f"imprint, sum of 10 x 4 photos, 256 bins, turned by {jitter:g}",
            free,
            f"(1-1/k)^39 = {(255 / 256) ** 39:.2f}",
        )
        assert (checked == [None] * 3) if jitter == 0 else (checked == free)


def whispered(whisper, seed):
    """The victim's decibels, None where nobody answered, and how many of ten clients saw dead rows."""
    protocol, plant = [ClientChecks(consistency=False), EXACT], Inconsistency(whisper=whisper)
    experiment, _, view, seen = trained(made(plant, protocol, 10, "model_inconsistency", seed=seed, hidden=[32]))
    psnr = scored(experiment, view)[1]
    return psnr[9][0] if psnr else None, seen["dead_rows"]["alarmed"]


@pytest.mark.parametrize("whisper", [1e-6, 1e-4, 1e-2])
@pytest.mark.slow
def test_whispering_against_the_check_for_dead_rows(whisper):
    figures, alarms = zip(*(whispered(whisper, seed) for seed in range(3)), strict=True)
    row(f"model inconsistency, n = 10, others at {whisper:g}, dead rows seen by {max(alarms)} (dB)", figures, "printed")
    assert max(alarms) < 9


def test_dead_rows_are_seen_and_nobody_answers():
    assert [whispered(0.0, seed) for seed in range(3)] == [(None, 9)] * 3


def test_fast_part_of_the_table():
    assert inconsistent(10, [EXACT])[0] >= 100
    assert inconsistent(10, [COARSE])[0] >= 60
    assert inconsistent(10, [ENCRYPTED])[0] >= 100
    assert inconsistent(10, [SecureAggregation()])[0] is None
    assert imprinted(0, [SecureAggregation(clip=8.0, mode="ideal")], batch=4, plant=Imprint(bins=256)) >= 0.7
