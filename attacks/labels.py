"""Labels from the output layer's update: the sign rule for a batch of one, counts for a larger batch."""

import torch
from torch import Tensor, nn

from attacks.losses import LOSSES
from attacks.probe import Dense, device_of, output_layer, proxies, trace
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction

_PROXIES = 512


def sign_rule_label(obs: Observation, know: Knowledge) -> int | None:
    """The label of a batch of one: the only class whose logit the step raises (Zhao et al. 2020, equation 3).

    The output layer's update is (p - y) times [activations, 1]: its leading singular pair averages client noise over
    the whole of it, and the bias, or the activations' usual direction, tells which way the pair points. None where
    the model does not end in a dense layer, or that layer's update is missing or zero.
    """
    layer = output_layer(obs.model, know)
    if layer is None or know.loss == "next_token":
        return None
    device = device_of(obs.model)
    moved = [name for name in layer.parameters if name in obs.update and obs.update[name].any()]
    parts = [obs.update[name].to(device, torch.float64).reshape(know.num_classes, -1) for name in moved]
    if not parts:
        return None
    block = torch.cat(parts, dim=1)
    left, _, right = torch.linalg.svd(block, full_matrices=False)
    if layer.bias in moved:
        points = right[0, -1]
    else:
        points = right[0] @ _activations(obs, know, layer, torch.Generator().manual_seed(0))[1]
    slope = left[:, 0] if points > 0 else -left[:, 0]
    return int(slope.argmin() if obs.kind == "gradient" else slope.argmax())


def label_counts_estimate(obs: Observation, know: Knowledge, generator: torch.Generator) -> Tensor:
    """The labels (batch_size,) of a batch, ascending. Raises NotApplicable without an output layer to read.

    A batch's bias gradient is its mean softmax less its label frequencies (Wainakh et al. 2022, section 4). The mean
    softmax is taken over ``public`` where granted, else over random inputs: good before training, poor after it.
    """
    return _estimate(obs, know, generator)[0]


def _estimate(obs: Observation, know: Knowledge, generator: torch.Generator) -> tuple[Tensor, float]:
    """The labels, and how far the estimated counts lie from whole numbers, per example."""
    if know.batch_size is None:
        raise NotApplicable("batch_size", "L5")
    if know.loss == "next_token":
        raise NotApplicable("one label per example (this loss has one per token)", "L5")
    layer = output_layer(obs.model, know)
    if layer is not None and not set(layer.parameters) & set(obs.update):
        layer.require_plain()
    if layer is None or not set(layer.parameters) & set(obs.update):
        raise NotApplicable("the update of a dense output layer", "L4")
    softmax, activations = _activations(obs, know, layer, generator)
    if layer.bias is not None and layer.bias in obs.update:
        slope = obs.update[layer.bias].to(softmax)
    else:
        slope = obs.update[layer.weight].to(softmax) @ activations / activations.square().sum()
    factor = mean_gradient_factor(obs, know)
    slope = slope * (_largest_factor(slope, softmax) if factor is None else factor)
    raw = ((softmax - slope) * know.batch_size).clamp_min(0).cpu()
    counts = whole_counts(raw, know.batch_size)
    if know.batch_size == 1 and obs.contributors == 1 and (label := sign_rule_label(obs, know)) is not None:
        counts = torch.eye(know.num_classes, dtype=torch.long)[label]
    labels = torch.arange(know.num_classes).repeat_interleave(counts)
    return labels, float((raw - counts).abs().sum()) / know.batch_size


def _activations(obs: Observation, know: Knowledge, layer: Dense, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mean softmax (classes,) and mean input of the output layer over public data, or else over random inputs."""
    if know.public is None:
        inputs = proxies(know, _PROXIES, obs.model, generator)
    else:
        chosen = torch.randperm(len(know.public), generator=generator)[:_PROXIES]
        inputs = know.public[chosen].to(next(obs.model.parameters()))
    outputs, calls = trace(obs.model, inputs)
    return outputs.double().softmax(1).mean(0), calls[layer.name][0][0].double().mean(0)


def mean_gradient_factor(obs: Observation, know: Knowledge) -> float | None:
    """What turns the update into the mean gradient over its examples; None for a delta of unknown learning rate.

    Exact for one local step; of several, the mean along the way.
    """
    if obs.kind == "gradient":
        return obs.scale
    if know.learning_rate is None:
        return None
    return -obs.scale / (know.learning_rate * _steps(know))


def _largest_factor(slope: Tensor, softmax: Tensor) -> float:
    """For a delta of unknown learning rate: the largest factor that leaves no class with a negative count."""
    lowered = slope < 0
    return -float((softmax[lowered] / -slope[lowered]).min()) if lowered.any() else -1.0


def _steps(know: Knowledge) -> int:
    if know.local_steps is not None:
        return know.local_steps
    if know.local_epochs is None:
        return 1
    examples = know.batch_size or 1
    return know.local_epochs * -(-examples // (know.local_batch_size or examples))


def whole_counts(raw: Tensor, total: int) -> Tensor:
    """Non-negative integers that sum to ``total``, nearest to ``raw`` in proportion (largest remainders)."""
    shares = raw * (total / raw.sum()) if raw.sum() > 0 else torch.full_like(raw, total / len(raw))
    counts = shares.floor().long()
    rest = (shares - counts).argsort(descending=True, stable=True)[: total - int(counts.sum())]
    counts[rest] += 1
    return counts


def _sanity() -> Sanity:
    """A batch of six, three of one class, at an untrained model."""
    draw = torch.Generator().manual_seed(5)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.rand(parameter.shape, generator=draw) - 0.2)
    inputs, labels = torch.rand((6, 8), generator=draw), torch.tensor([0, 2, 2, 2, 3, 3])
    loss = LOSSES["cross_entropy"](model(inputs), labels)
    names = [name for name, _ in model.named_parameters()]
    update = dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    know = Knowledge(input_shape=(8,), num_classes=4, batch_size=6, value_range=(0.0, 1.0))
    return Sanity(
        Observation(model, update, "gradient"),
        know,
        Budget(),
        lambda claim: claim.labels is not None and claim.labels.tolist() == labels.tolist(),
    )


@attack(
    "label_counts",
    paper="Wainakh et al., PETS 2022, section 4; Zhao et al. 2020, equation 3, for a batch of one",
    claim="how many examples of each class a batch holds",
    needs=Needs(rung="L5", knowledge=("batch_size",), sums=True),
    cost="closed form",
    stopped_by="noise, or keeping the output layer's gradient hidden",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction:
    """Closed form; the objective is the distance of the estimated counts from whole ones, per example."""
    labels, distance = _estimate(case.observation, case.knowledge, case.generator)
    if not any(tensor.any() for tensor in case.observation.update.values()):
        note = "the update is zero: it holds no label"
        return Reconstruction(None, None, torch.full((1,), torch.nan), converged=False, diverged=1, notes=(note,))
    return Reconstruction(None, labels, torch.tensor([distance]))
