"""What a client can compute, before it trains or answers, to tell a crafted model from one it trusts."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.losses import LOSSES
from attacks.probe import sandbox

_PARALLEL = 1e-5
"""Rows whose cosine is within this of one point the same way: independent rows never do."""
_FEWEST = 16
"""A layer with fewer rows than this tells nothing by the share of rows that look odd."""
_TRUSTED = 2.0
"""A figure is suspicious where it is beyond its threshold, and more than so many times the trusted model's."""


@dataclass(frozen=True)
class Finding:
    """One signal: its largest ``value`` over the received model, found at ``where``, and the trusted model's.

    ``suspicious`` compares the value with ``threshold`` and with ``trusted``; ``says`` is a sentence for the report.
    """

    signal: str
    where: str
    value: float
    trusted: float
    threshold: float
    says: str

    @property
    def suspicious(self) -> bool:
        """Whether an honest model would not show this."""
        return self.value > self.threshold and self.value > _TRUSTED * self.trusted


def digest(model: nn.Module) -> str:
    """SHA-256 over the names, shapes, types and bytes of a model's state: equal models, equal digests."""
    state = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        state.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def disagreement(digests: Mapping[int, str]) -> Finding:
    """The share of clients whose model is not the one that most were sent; an honest server sends one model to all."""
    counts: dict[str, int] = {}
    for value in digests.values():
        counts[value] = counts.get(value, 0) + 1
    common = max(counts, key=lambda value: counts[value])
    odd = sorted(client for client, value in digests.items() if value != common)
    says = f"clients {odd} were sent another model than the rest" if odd else "all clients were sent the same model"
    return Finding("model_hash", ", ".join(map(str, odd)), len(odd) / len(digests), 0.0, 0.0, says)


def examine(
    received: nn.Module, trusted: nn.Module, inputs: Tensor, labels: Tensor, loss: str = "cross_entropy"
) -> tuple[Finding, ...]:
    """Every signal of a model that a client was sent, beside that of one it trusts, on its own batch of at least two.

    ``trusted`` is the last round's model, or a fresh one of the agreed architecture. Neither model is altered.
    """
    if len(inputs) < 2:
        raise ValueError("inputs: these signals compare examples; give at least two")
    own, other = (_signals(model, inputs, labels, loss) for model in (received, trusted))
    strangers = sorted(_unmatched(received, trusted) + _unmatched(trusted, received))
    says = f"parameters that only one of the two models has: {', '.join(strangers)}" if strangers else "as agreed"
    findings = [Finding("architecture", ", ".join(strangers), float(len(strangers)), 0.0, 0.0, says)]
    for signal, (threshold, wording) in SIGNALS.items():
        where, value = own[signal]
        says = wording.format(value=value, where=where, trusted=other[signal][1])
        findings.append(Finding(signal, where, value, other[signal][1], threshold, says))
    return tuple(findings)


SIGNALS: dict[str, tuple[float, str]] = {
    "parallel_rows": (0.1, "{value:.0%} of the rows of {where} point the same way as another (trusted: {trusted:.0%})"),
    "dead_rows": (0.5, "{value:.0%} of the rows of {where} get no gradient from any example (trusted: {trusted:.0%})"),
    "scarce_rows": (
        0.45,
        "{value:.0%} of the rows of {where} get theirs from at most one example (trusted: {trusted:.0%})",
    ),
    "gradient_snr": (5.0, "one example outweighs all others {value:.3g} times in {where} (trusted: {trusted:.3g})"),
}
"""Threshold and wording of each signal that is measured on a layer, or on a layer's gradients."""


def _unmatched(model: nn.Module, other: nn.Module) -> list[str]:
    """The parameters of ``model`` that ``other`` lacks, where either may be wrapped in further modules."""
    known = [f".{name}" for name, _ in other.named_parameters()]
    names = [f".{name}" for name, _ in model.named_parameters()]
    return [n[1:] for n in names if not any(n.endswith(k) or k.endswith(n) for k in known)]


def _signals(model: nn.Module, inputs: Tensor, labels: Tensor, loss: str) -> dict[str, tuple[str, float]]:
    """For each signal the parameter in which it is largest, and its value there."""
    weights = {n: p.detach().flatten(1).double() for n, p in model.named_parameters() if p.ndim > 1}
    found: dict[str, dict[str, float]] = {signal: {} for signal in SIGNALS}
    for name, weight in weights.items():
        if len(weight) >= _FEWEST and weight.shape[1] > 1:
            found["parallel_rows"][name] = _parallel(weight)
    rows, norms = _per_example(model, inputs, labels, loss)
    for name, row in rows.items():
        if row.shape[1] >= _FEWEST:
            movers = (row > 0).sum(0)
            found["dead_rows"][name] = float((movers == 0).double().mean())
            found["scarce_rows"][name] = float((movers <= 1).double().mean())
    for name, norm in norms.items():
        found["gradient_snr"][name] = _signal_to_noise(norm)
    largest = {signal: max(values, key=lambda n: values[n], default="") for signal, values in found.items()}
    return {signal: (where, found[signal].get(where, 0.0)) for signal, where in largest.items()}


def _parallel(weight: Tensor) -> float:
    """The share of non-zero rows (H, d) that are parallel to another."""
    live = weight[weight.any(1)]
    if len(live) < 2:
        return 0.0
    unit = live / live.norm(dim=1, keepdim=True)
    cosine = (unit @ unit.T).abs().fill_diagonal_(0)
    return float((cosine.max(1).values > 1 - _PARALLEL).double().mean())


def _per_example(
    model: nn.Module, inputs: Tensor, labels: Tensor, loss: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Norms of each example's gradient: of each row of each weight (B, rows), and of each parameter (B,)."""
    rows: dict[str, list[Tensor]] = {}
    norms: dict[str, list[Tensor]] = {}
    with sandbox(model) as twin:
        twin.eval()  # an example of its own has no batch statistics
        names, parameters = zip(*twin.named_parameters(), strict=True)
        for x, y in zip(inputs.split(1), labels.split(1), strict=True):
            gradients = torch.autograd.grad(
                LOSSES[loss](twin(x), y), parameters, allow_unused=True, materialize_grads=True
            )
            for name, gradient in zip(names, gradients, strict=True):
                norms.setdefault(name, []).append(gradient.double().norm())
                if gradient.ndim > 1:
                    rows.setdefault(name, []).append(gradient.flatten(1).double().norm(dim=1))
    return {n: torch.stack(r) for n, r in rows.items()}, {n: torch.stack(v) for n, v in norms.items()}


def _signal_to_noise(norms: Tensor) -> float:
    """The largest example's norm over the root of all others' squares (Garov et al., ICLR 2024, the D-SNR)."""
    energy = norms.square()
    if not energy.any():
        return 0.0
    rest = (energy.sum() - energy.max()).clamp_min(torch.finfo(energy.dtype).tiny)
    return float(energy.max().sqrt() / rest.sqrt())  # finite, where the quotient of the energies is not
