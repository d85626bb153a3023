import torch
from torch import nn

from attacks import Knowledge, Observation, reconstruct, reconstruct_many
from attacks.metrics import psnr
from attacks.prior import nearest_public, proportional_labels


def test_claims_the_mean_public_image_and_labels_in_the_public_proportions(digits):
    x, y = digits
    know = Knowledge((64,), 10, batch_size=3, public=x[:300], public_labels=y[:300])
    claim = reconstruct("prior", (), know)
    assert claim.inputs.shape == (3, 64)
    assert torch.allclose(claim.inputs, x[:300].mean(0).expand(3, 64))
    assert claim.labels.tolist() == y[:300].bincount().argsort(descending=True, stable=True)[:3].sort().values.tolist()


def test_proportions_of_large_batches_are_kept_and_of_one_example_the_commonest_class_is():
    public = torch.tensor([0] * 6 + [2] * 3 + [5])
    assert proportional_labels(public, 20).bincount().tolist() == [12, 0, 6, 0, 0, 2]
    assert proportional_labels(public, 1).tolist() == [0]


def test_the_mean_image_of_digits_is_the_known_baseline(digits):
    x, _ = digits
    claim = reconstruct("prior", (), Knowledge((64,), 10, public=x))
    assert claim.labels is None
    figures = psnr(claim.inputs.expand_as(x), x, (0.0, 1.0))
    assert abs(float(figures.median()) - 11.35) < 0.3


def test_needs_no_update_and_never_looks_at_one(digits):
    x, y = digits
    model = nn.Linear(64, 10)
    know = Knowledge((64,), 10, batch_size=1, public=x[:50], public_labels=y[:50])
    loud = {"weight": torch.full((10, 64), 9.0)}
    claims = reconstruct_many("prior", [((), know, 0), (Observation(model, loud, "delta", contributors=7), know, 1)])
    assert torch.equal(claims[0].inputs, claims[1].inputs)


def test_tokens_have_a_commonest_sequence_instead_of_a_mean():
    public = torch.tensor([[1, 5, 2], [1, 4, 2], [3, 5, 2]])
    claim = reconstruct("prior", (), Knowledge((3,), 6, batch_size=2, public=public, public_labels=public))
    assert claim.inputs.tolist() == [[1, 5, 2]] * 2
    assert claim.labels is None


def test_nearest_public_is_nearest_in_squared_error_and_by_positions_for_tokens(digits):
    x, _ = digits
    targets, public = x[:20], x[20:]
    brute = ((targets[:, None] - public[None]) ** 2).sum(2).argmin(1)
    assert torch.equal(nearest_public(targets, public), public[brute])
    tokens = torch.tensor([[1, 2, 3], [9, 2, 3], [1, 2, 50]])
    assert nearest_public(torch.tensor([[1, 2, 4]]), tokens[1:]).tolist() == [[1, 2, 50]]
