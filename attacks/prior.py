"""What one would guess about any client without its update: the floor under every leakage figure."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attacks.labels import whole_counts
from attacks.registry import Case, Needs, Sanity, attack
from attacks.view import Budget, Knowledge, Observation, Reconstruction


def mean_example(public: Tensor) -> Tensor:
    """The mean of public examples (N, *shape); of token ids, which have no mean, the commonest per position."""
    return public.mean(0) if public.is_floating_point() else public.mode(0).values


def nearest_public(targets: Tensor, public: Tensor) -> Tensor:
    """For each target (B, *shape) the nearest public example by squared error; of tokens, by positions that differ.

    A figure's baseline: it looks at the targets, as no attack can.
    """
    flat, pool = targets.flatten(1).double(), public.to(targets.device).flatten(1).double()
    distance = torch.cdist(flat, pool, p=2.0 if targets.is_floating_point() else 0.0)
    return public.to(targets.device)[distance.argmin(1)]


def proportional_labels(public_labels: Tensor, count: int) -> Tensor:
    """``count`` labels in the proportions of the public ones (N,), ascending; of one label, the commonest."""
    classes, seen = public_labels.unique(return_counts=True)
    return classes.repeat_interleave(whole_counts(seen.double().cpu(), count).to(classes.device))


def _sanity() -> Sanity:
    model = nn.Linear(3, 2)
    public = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.5, 0.0, 0.5]])
    know = Knowledge((3,), 2, batch_size=2, public=public, public_labels=torch.tensor([1, 0, 1]))
    expected = torch.tensor([[0.5, 0.0, 0.5], [0.5, 0.0, 0.5]])

    def won(claim: Reconstruction) -> bool:
        if claim.inputs is None or claim.labels is None:
            return False
        return torch.allclose(claim.inputs, expected) and claim.labels.tolist() == [0, 1]

    return Sanity(Observation(model, {}, "gradient"), know, Budget(), won)


@attack(
    "prior",
    paper="the no-update baseline; Jayaraman and Evans, CCS 2022, on why every figure needs one",
    claim="nothing about the client: the mean public example, and labels in the public classes' proportions",
    needs=Needs(rung="L0", knowledge=("public",), sums=True, update=False),
    cost="closed form",
    stopped_by="nothing: it is what guessing gives",
    sanity=_sanity,
)
def solve(cases: Sequence[Case], budget: Budget) -> list[Reconstruction]:
    """The mean public example, ``batch_size`` times (once where that is not granted)."""
    return [_claim(case.knowledge) for case in cases]


def _claim(know: Knowledge) -> Reconstruction:
    assert know.public is not None  # checked by the registry
    count = know.batch_size or 1
    labels = know.public_labels
    # Labels of a text are its tokens: they have no class.
    guessed = proportional_labels(labels, count) if labels is not None and labels.ndim == 1 else None
    guess = mean_example(know.public)
    return Reconstruction(guess.repeat(count, *[1] * guess.ndim), guessed, torch.zeros(count))
