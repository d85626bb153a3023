"""Whether a gradient pins its inputs down at all: the spectrum of the gradient's Jacobian in the inputs.

A search that matched the gradient and still missed the inputs proves nothing about a stronger one, unless inputs that
differ visibly have gradients that agree to within what the update shows. This tells the two apart.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp, vjp

from attacks.first_order import STEP, differenced
from attacks.losses import LOSSES
from attacks.matching import Matching, Victim, prepare
from attacks.objectives import euclidean
from attacks.registry import Case
from attacks.view import Knowledge, NotApplicable, Observation, Reconstruction, generator

Product = Callable[[Tensor], Tensor]

_STEPS = 300
NEAR, MATCHED = 0.1, 1e-2
"""The relative mismatch from which on a search came near, and the one at which its end is judged at the coarsest."""
_OPEN = 0.25
"""Share of open directions from which a claim says nothing about the inputs, whatever matched the gradient."""


@dataclass(frozen=True)
class Conditioning:
    """The spectrum of d gradient / d inputs at a claim, in parts of the gradient's norm per part of the value range.

    ``largest`` singular value, and ``smallest`` an upper bound of the least. ``undetermined`` is the share of input
    directions that could all be off by the whole value range at once while the gradient changes by no more than
    ``mismatch``, the relative distance between the claim's gradient and the one that was seen.
    """

    largest: float
    smallest: float
    undetermined: float
    mismatch: float

    @property
    def ill(self) -> bool:
        """Whether a good part of the input could be anything as far as the gradient shows."""
        return self.undetermined > _OPEN

    @property
    def says(self) -> str:
        """A sentence for the report."""
        return (
            f"{'ill-conditioned' if self.ill else 'determined'}: condition number at least "
            f"{self.largest / self.smallest:.1e}; at a relative mismatch of {self.mismatch:.1e} the gradient leaves "
            f"{self.undetermined:.0%} of the input directions open" + ", which is not protection" * self.ill
        )


def conditioning(
    obs: Observation, know: Knowledge, claim: Reconstruction, mismatch: float | None = None
) -> Conditioning:
    """The conditioning at a claim that holds inputs and labels for one gradient, in float64, by Lanczos iterations.

    ``mismatch`` defaults to that of the claim itself; a smaller one asks how far a better search could get. The
    density of the spectrum is that of stochastic Lanczos quadrature (Ubaru, Chen, Saad 2017, section 3) with one
    probe, which overstates the least singular values and so understates what is open. Of a model without second
    derivatives, by differences of first ones, which blur singular values below 1e-7 of the largest. Raises ValueError
    for a claim without inputs or labels.
    """
    victim, point, found = _claimed(obs, know, claim)
    if mismatch is None:
        mismatch = _mismatch(victim, found)
    return _judged(victim, point, found, mismatch)


def doubt(obs: Observation, know: Knowledge, claim: Reconstruction) -> str:
    """Why a claim that came near the gradient proves nothing by what it missed; empty where it proves something.

    A search that ended short of a close match is judged as if it had got there. Computed from the claim alone, never
    from the truth. Empty, too, for a claim that is not about one gradient.
    """
    try:
        victim, point, found = _claimed(obs, know, claim)
        mismatch = _mismatch(victim, found)
        if not mismatch <= NEAR:
            return ""
        judged = _judged(victim, point, found, min(mismatch, MATCHED))
    except (ValueError, RuntimeError, NotApplicable):
        return ""
    return f"not recovered, {judged.says}" if judged.ill else ""


def _claimed(obs: Observation, know: Knowledge, claim: Reconstruction) -> tuple[Victim, Tensor, Tensor]:
    """The case made ready, the claim as a point in unit coordinates (D,), and its gradient (P,)."""
    if claim.inputs is None or claim.labels is None:
        raise ValueError("claim: the Jacobian is taken at claimed inputs and labels; this claim lacks them")
    case = Case((obs,), know, generator(0))
    victim = prepare(case, dict(obs.update), claim.labels, Matching(euclidean, dtype=torch.float64))
    point = ((claim.inputs.double() - victim.low) / (victim.high - victim.low)).flatten()
    return victim, point, _gradient(victim, point)


def _mismatch(victim: Victim, found: Tensor) -> float:
    """The distance of the claim's gradient, at its best scale, from the one that was seen, in parts of the latter."""
    seen = torch.cat([tensor.flatten() for tensor in victim.target.values()])
    scale = found @ seen / found.square().sum()
    return float((scale * found - seen).norm() / seen.norm())


def _judged(victim: Victim, point: Tensor, found: Tensor, mismatch: float) -> Conditioning:
    nodes, weights = _spectrum(victim, point, found.norm())
    moved = (weights * nodes * len(point)).cumsum(0).sqrt()
    open_share = float(weights[moved < mismatch].sum())
    return Conditioning(float(nodes[-1].sqrt()), float(nodes[0].sqrt()), open_share, mismatch)


def _gradient(victim: Victim, point: Tensor, twice: bool = False) -> Tensor:
    """The loss's gradient in all matched parameters (P,), at inputs in unit coordinates (D,).

    ``twice`` for one that PyTorch derives once more, which takes a model with second derivatives.
    """

    def loss(matched: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        state = ({**victim.parameters, **matched}, dict(victim.buffers))
        return LOSSES[victim.loss](functional_call(victim.model, state, (x,)), y)

    derive = grad(loss) if twice else functools.partial(differenced, loss)
    slopes = derive({name: victim.parameters[name] for name in victim.target}, victim.to_data(point), victim.labels)
    return torch.cat([slopes[name].flatten() for name in victim.target])


def _products(victim: Victim, point: Tensor, norm: Tensor) -> tuple[Product, Product]:
    """Multiplication by J and by its transpose."""
    exact = functools.partial(_gradient, victim, twice=True)

    def forward(direction: Tensor) -> Tensor:
        image: Tensor = jvp(exact, (point,), (direction,))[1]
        return image / norm

    try:
        back = vjp(exact, point)[1]
        forward(point)
    except (RuntimeError, NotImplementedError):
        return _differences(victim, point, norm)
    return forward, lambda image: back(image)[0] / norm


def _differences(victim: Victim, point: Tensor, norm: Tensor) -> tuple[Product, Product]:
    def forward(direction: Tensor) -> Tensor:
        step = torch.finfo(point.dtype).eps ** STEP * (1 + point.norm()) / direction.norm()
        ahead, behind = (_gradient(victim, point + sign * step * direction) for sign in (1, -1))
        return (ahead - behind) / (2 * step * norm)

    def back(image: Tensor) -> Tensor:
        at = point.clone().requires_grad_()
        return torch.autograd.grad(_gradient(victim, at) @ image, at)[0] / norm

    return forward, back


def _spectrum(victim: Victim, point: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
    """Ritz values of J^T J, ascending, and their weights, which sum to one."""
    probe = torch.randn(len(point), generator=generator(0), dtype=torch.float64).to(point.device)
    diagonal, beside = _lanczos(victim, point, probe / probe.norm(), norm)
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    floor = np.finfo(values.dtype).eps * values[-1]
    return torch.from_numpy(values).clamp_min(floor), torch.from_numpy(vectors[0] ** 2)


def _lanczos(victim: Victim, point: Tensor, start: Tensor, norm: Tensor) -> tuple[list[float], list[float]]:
    """Diagonal and off-diagonal of J^T J in the Krylov basis of ``start``, kept orthogonal throughout."""

    push, pull = _products(victim, point, norm)
    basis, diagonal, beside = [start], [], []
    for _ in range(min(_STEPS, len(point))):
        image = pull(push(basis[-1]))
        diagonal.append(float(image @ basis[-1]))
        known = torch.stack(basis)
        for _ in range(2):
            image = image - known.T @ (known @ image)
        beside.append(float(image.norm()))
        if beside[-1] < 1e-14 * diagonal[0]:
            break
        basis.append(image / image.norm())
    return diagonal, beside[: len(diagonal) - 1]
