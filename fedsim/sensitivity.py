"""How sensitive each coordinate of an update is, measured on public data at the untrained model: everybody can know it.

The model is in evaluation mode, since one example is no batch.

FedML-HE (Jin et al. 2023, section 2.4) has clients measure it on private data under encryption; a map that the server
may see must not be made of such data.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.losses import LOSSES
from crypto.he.selective import label_sensitivity, magnitude_sensitivity
from fedsim.client import plain_gradient, trainable
from fedsim.experiment import Experiment
from fedsim.tasks import TaskError
from strategies.secure_aggregation import flat

EXAMPLES = 8
"""Public examples that are measured, each alone."""

Rows = Iterator[NDArray[np.float32]]


def sensitivity(experiment: Experiment, measure: str) -> NDArray[np.float64]:
    """The sensitivity (d,) of every coordinate of an update, in the order of ``flat``.

    Raises TaskError without public data, or where the measure does not fit the loss.
    """
    if not len(experiment.division.public):
        reason = "selective encryption ranks the coordinates on public data, and there is none"
        raise TaskError("task.public_fraction", experiment.scenario.task.public_fraction, reason, "raise it")
    chosen = MEASURES[measure]
    total, count = np.zeros(0), 0
    for row in chosen.rows(experiment):
        one = chosen.mean(row[None])
        total, count = (total + one if count else one), count + 1
    return total / count


def _gradients(experiment: Experiment) -> Rows:
    """The gradient of each public example."""
    model, gradient = experiment.initial_model().eval(), plain_gradient(LOSSES[experiment.loss_name])
    inputs, labels = experiment.public_data()
    for i in range(min(EXAMPLES, len(inputs))):
        yield flat(dict(gradient(model, inputs[i : i + 1], labels[i : i + 1])))


def _label_jacobians(experiment: Experiment) -> Rows:
    """How each public example's gradient moves with each component of its label: that of cross-entropy is linear."""
    if experiment.loss_name != "cross_entropy":
        reason = f"is defined for cross_entropy, not for {experiment.loss_name}"
        raise TaskError("protocol.sensitivity", "label", reason, "use 'magnitude'")
    model, inputs = experiment.initial_model().eval(), experiment.public_data()[0]
    names, parameters = zip(*trainable(model).items(), strict=True)
    for i in range(min(EXAMPLES, len(inputs))):
        for score in torch.log_softmax(model(inputs[i : i + 1]), dim=1)[0]:
            moved = torch.autograd.grad(score, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            yield flat(dict(zip(names, moved, strict=True)))


class _Measure(NamedTuple):
    rows: Callable[[Experiment], Rows]
    mean: Callable[[NDArray[np.float32]], NDArray[np.float64]]


MEASURES = {
    "magnitude": _Measure(_gradients, magnitude_sensitivity),
    "label": _Measure(_label_jacobians, label_sensitivity),
}
"""By the names that ``Homomorphic.sensitivity`` takes."""
