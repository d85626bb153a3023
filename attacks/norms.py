"""BatchNorm statistics as a prior on images (Yin et al. 2021, GradInversion, equation 10)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from attacks.view import Knowledge, NotApplicable, Observation

Statistics = dict[str, Tensor]
"""``<module>.running_mean`` and ``<module>.running_var`` -> (channels,), as in a state dict."""


def _layers(model: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """The BatchNorm layers that hold running statistics, by module name."""
    found = {n: m for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    return {name: module for name, module in found.items() if module.running_mean is not None}


def running_statistics(obs: Observation) -> Statistics:
    """Those of the model that was sent: of all clients' data so far, or (0, 1) before any training."""
    return {
        f"{name}.{which}": getattr(layer, which).detach().clone()
        for name, layer in _layers(obs.model).items()
        for which in ("running_mean", "running_var")
    }


def batch_statistics(obs: Observation, know: Knowledge) -> Statistics:
    """Those of the private batch: granted, or solved from buffers that travelled beside an update of one local step.

    The new running value is (1 - m) times the old one plus m times the batch's, variances without bias. Raises
    NotApplicable where neither is there, or the buffers moved by more or less than one step.
    """
    layers = _layers(obs.model)
    if know.batch_stats is not None:
        return dict(know.batch_stats)
    if not layers:
        raise NotApplicable("a model with BatchNorm statistics", "L6")
    before, solved = running_statistics(obs), {}
    for name, layer in layers.items():
        if any(f"{name}.{which}" not in obs.buffers for which in ("running_mean", "running_var")):
            raise NotApplicable("batch_stats, or the buffers after training", "L6")
        made = obs.buffers.get(f"{name}.num_batches_tracked")
        if made is None or layer.num_batches_tracked is None or int(made) - int(layer.num_batches_tracked) != 1:
            raise NotApplicable("batch_stats, or buffers after exactly one local step", "L6")
        share = layer.momentum if layer.momentum is not None else 1.0 / int(made)
        for which in ("running_mean", "running_var"):
            key = f"{name}.{which}"
            after = obs.buffers[key].to(before[key])
            if torch.equal(after, before[key]):
                raise NotApplicable("batch_stats, or buffers that training moved", "L6")
            solved[key] = (after - (1 - share) * before[key]) / share
    return solved


def watch(model: nn.Module) -> dict[str, Tensor]:
    """What each BatchNorm layer read at the model's latest call, kept up to date from now on."""
    seen: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(lambda _, read, name=name: seen.update({name: read[0]}))
    return seen


def strangeness(seen: Mapping[str, Tensor], statistics: Mapping[str, Tensor]) -> Tensor:
    """How far layer inputs (B, channels, ...) are from the statistics, in their units (scalar, mean over layers)."""
    total, count = torch.zeros(()), 0
    for name, read in seen.items():
        mean, variance = statistics[f"{name}.running_mean"], statistics[f"{name}.running_var"].clamp_min(1e-8)
        own = read.transpose(0, 1).flatten(1)
        centre = own.mean(1)
        spread = (own - centre[:, None]).square().sum(1) / max(own.shape[1] - 1, 1)
        gap = (centre - mean).square() / variance + (spread.sqrt() / variance.sqrt() - 1).square()
        total, count = total.to(gap) + gap.mean(), count + 1
    return total / max(count, 1)
