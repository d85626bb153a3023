"""The gradient of DP-SGD: every example's gradient clipped, their sum noised (Abadi et al. 2016, algorithm 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from attacks.losses import Loss
from strategies.base import ClientContext, ClientUpdateError, Update
from strategies.gaussian import NoiseSource, noise, witness

MICROBATCH = 32
"""Examples whose gradients are held at once: memory is this many models."""


class NotPerExample(ValueError):
    """The model mixes the examples of a batch, so that no gradient belongs to one example."""


def refusals(model: nn.Module) -> list[str]:
    """Why ``model``, in its present mode, has no per-example gradient; empty when it has one."""
    return [
        f"model.{name} = {type(module).__name__}: its batch statistics make every example's output depend on the "
        "others, so clipping one example's gradient does not bound that example's influence; use GroupNorm or LayerNorm"
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
        and (module.track_running_stats or isinstance(module, nn.modules.batchnorm._BatchNorm))
        and (module.training or module.running_mean is None)
    ]


@dataclass(frozen=True)
class PrivateGradient:
    """A ``LocalGradient``: clips each example's gradient to L2 norm ``clip``, and noises their sum.

    The sum takes N(0, (noise_multiplier * clip)^2) on each coordinate and is divided by the *expected* batch size:
    dividing by the real one would reveal it, and would let one example change the scale of all others.
    """

    kind: str
    clip: float
    noise_multiplier: float
    noise_source: NoiseSource = "seed"

    def __call__(
        self,
        model: nn.Module,
        loss: Loss,
        inputs: Tensor,
        labels: Tensor,
        expected_batch_size: float,
        context: ClientContext,
    ) -> Update:
        """Gradient per trainable parameter; raises NotPerExample, or ClientUpdateError where one is not finite.

        ``model`` keeps its mode and weights. ``loss`` is called on batches of one. An empty batch gives noise alone.
        """
        if reasons := refusals(model):
            raise NotPerExample("; ".join(reasons))
        if expected_batch_size <= 0:
            raise ValueError(f"expected_batch_size = {expected_batch_size}: must be positive")
        parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
        before = after = 0.0
        for x, y in zip(inputs.split(MICROBATCH), labels.split(MICROBATCH), strict=True):
            if not len(x):
                continue
            each = per_example_gradients(model, loss, x, y, parameters)
            norms = example_norms(each)
            kept = {name: g.double() * _rows(clip_factors(norms, self.clip), g) for name, g in each.items()}
            for name, g in kept.items():
                total[name] += g.sum(0)
            before, after = max(before, float(norms.max())), max(after, float(example_norms(kept).max()))
        released, squares = {}, 0.0
        for name, clipped in total.items():
            drawn = noise(clipped.shape, self.noise_multiplier * self.clip, self.noise_source, context.generator)
            noised = (clipped + drawn.to(clipped.device)) / expected_batch_size
            released[name] = noised.to(parameters[name].dtype)
            squares += float((released[name].double() * expected_batch_size - clipped).square().sum())
        witness(
            context.evidence,
            self.kind,
            norm_before=before,
            norm_after=after,
            noise_squares=squares,
            coordinates=sum(t.numel() for t in total.values()),
        )
        return released


def per_example_gradients(model: nn.Module, loss: Loss, inputs: Tensor, labels: Tensor, parameters: Update) -> Update:
    """Gradient of ``loss`` at ``parameters`` for each example alone: name -> (B, *shape)."""
    constants = dict(model.named_buffers()) | {n: p for n, p in model.named_parameters() if n not in parameters}

    def one(trainable: Update, x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(model, {**constants, **trainable}, (x[None],)), y[None])

    gradients = vmap(grad(one), in_dims=(None, 0, 0), randomness="different")(parameters, inputs, labels)
    for name, g in gradients.items():
        if not torch.isfinite(g).all():
            raise ClientUpdateError(name, "has a non-finite gradient: local training diverged; lower the learning rate")
    return gradients


def example_norms(gradients: Update) -> Tensor:
    """The L2 norm of each example's whole gradient: (B,), float64."""
    return torch.stack([g.double().flatten(1).square().sum(1) for g in gradients.values()]).sum(0).sqrt()


def clip_factors(norms: Tensor, clip: float) -> Tensor:
    """What to multiply each example's gradient by, (B,): exactly 1 where its norm is at most ``clip``."""
    return torch.where(norms <= clip, 1.0, clip / norms)


def _rows(factors: Tensor, like: Tensor) -> Tensor:
    return factors.reshape(-1, *[1] * (like.dim() - 1))
