import pytest
import torch

from attacks import Knowledge, NotApplicable, Observation, available, reconstruct
from attacks.metrics import psnr
from fedsim.tasks import load_dataset
from fedsim.tasks.models import build_model
from tests.attacks.conftest import delta, gradient, mlp

UNIT = (0.0, 1.0)


@pytest.fixture(scope="module")
def photos():
    return load_dataset("photos", {}, 0)


def at_a_vit(photos, seed, update=gradient, **options):
    model = build_model("vit", photos, options, seed)
    x, y = photos.inputs[[seed]], photos.labels[[seed]]
    kind = "gradient" if update is gradient else "delta"
    know = Knowledge(photos.input_shape, photos.num_classes, batch_size=1, value_range=UNIT)
    return Observation(model, update(model, x, y), kind), know, x, y


def test_wins_its_sanity_case():
    sanity = available()["april"].sanity()
    assert sanity.won(reconstruct("april", sanity.observation, sanity.knowledge))


def test_rebuilds_a_photograph_exactly_where_the_rank_suffices(photos):
    for seed in range(3):
        obs, know, x, y = at_a_vit(photos, seed, dim=128)
        claim = reconstruct("april", obs, know)
        assert "rank 64 for 64 patches" in claim.notes[0]
        assert float(psnr(claim.inputs, x, UNIT)) >= 50
        assert claim.labels.tolist() == y.tolist()


def test_says_how_much_rank_is_lacking(photos):
    obs, know, x, _ = at_a_vit(photos, 0, dim=32)
    claim = reconstruct("april", obs, know)
    assert "for 64 patches: the rest is left" in claim.notes[0]
    assert float(psnr(claim.inputs, x, UNIT)) < 30


def test_reads_several_local_steps_of_an_unknown_rate(photos):
    obs, know, x, _ = at_a_vit(photos, 1, lambda model, x, y: delta(model, x, y, 0.05, 5), dim=128)
    assert float(psnr(reconstruct("april", obs, know).inputs, x, UNIT)) >= 30


def test_what_it_cannot_read_is_not_applicable(photos):
    obs, know, _, _ = at_a_vit(photos, 0)
    with pytest.raises(NotApplicable, match="batch of one"):
        reconstruct("april", obs, Knowledge(photos.input_shape, photos.num_classes, batch_size=2))
    frozen = {name: t for name, t in obs.update.items() if name != "position"}
    with pytest.raises(NotApplicable, match="position"):
        reconstruct("april", Observation(obs.model, frozen, "gradient"), know)
    x, y = torch.zeros(1, 64), torch.tensor([3])
    with pytest.raises(NotApplicable, match="patch embedding"):
        reconstruct("april", Observation(mlp(0), gradient(mlp(0), x, y), "gradient"), Knowledge((64,), 10, 1))


def test_a_zero_update_is_divergence(photos):
    obs, know, _, _ = at_a_vit(photos, 0)
    zero = {name: torch.zeros_like(t) for name, t in obs.update.items()}
    assert not reconstruct("april", Observation(obs.model, zero, "gradient"), know).converged
