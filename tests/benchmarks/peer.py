"""One attack of PyPI ``breaching``, timed in that package's own environment; prints one line of JSON a victim.

``python peer.py CONFIG ITERATIONS victim.npz... [--restarts R] [--tv WEIGHT]``. A file holds the ``model``'s name, its
parameters (``p0``...), the update (``g0``...), the ``labels``, and for local steps their ``rate`` and the ``steps``
(from, up to). The claim is written beside it, as ``victim.npz.claim.npy``. Imports nothing of this repository.
"""

import argparse
import json
import re
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn


class Metadata(dict[str, Any]):
    """What the peer reads now by key and now by attribute."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        return self[name]


def import_breaching() -> Any:
    """The package, also beside a torchvision whose compiled operators do not fit this torch: no attack uses them."""
    stand_in = torch.library.Library("torchvision", "FRAGMENT")
    while True:
        try:
            import breaching
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            stand_in.define(f"{missing[1]}(Tensor x) -> Tensor")
            for name in [name for name in sys.modules if name.split(".")[0] in ("torchvision", "breaching")]:
                del sys.modules[name]
        else:
            return breaching


def lenet(classes: int) -> nn.Module:
    """The sigmoid LeNet, for 3x32x32 inputs."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 5, stride=2, padding=2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, stride=2, padding=2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, stride=1, padding=2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(768, classes),
    )


def convnet(classes: int) -> nn.Module:
    """The ReLU ConvNet of 16, 32 and 64 channels, for 3x32x32 inputs."""
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 16, 1), (16, 32, 2), (32, 64, 2)):
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4096, classes))


MODELS = {"lenet": lenet, "convnet": convnet}


def attacked(breaching: Any, path: str, settings: Any) -> dict[str, Any]:
    """Attack one victim; CPU seconds and evaluations of the objective."""
    saved = np.load(path)
    count = sum(re.fullmatch(r"p\d+", name) is not None for name in saved.files)
    parameters = [torch.tensor(saved[f"p{i}"]) for i in range(count)]
    update = [torch.tensor(saved[f"g{i}"]) for i in range(count)]
    labels, classes = torch.tensor(saved["labels"]), len(parameters[-1])
    attacker = breaching.attacks.prepare_attack(MODELS[str(saved["model"])](classes), nn.CrossEntropyLoss(), settings)
    evaluations = 0
    objective = attacker.objective.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal evaluations
        evaluations += 1
        return objective(*args, **kwargs)

    attacker.objective.forward = counted
    local = None
    if "steps" in saved:
        steps = saved["steps"].tolist()
        local = {"lr": float(saved["rate"]), "steps": len(steps), "data_per_step": steps[0][1] - steps[0][0]}
        local["labels"] = [labels[begin:end] for begin, end in steps]
    metadata = Metadata(shape=(3, 32, 32), classes=classes, modality="vision", task="classification")
    payload = [{"parameters": parameters, "buffers": None, "metadata": metadata}]
    joint = settings.attack_type == "joint-optimization"
    told = {"num_data_points": len(labels), "labels": None if joint else labels, "local_hyperparams": local}
    shared = [{"gradients": update, "buffers": None, "metadata": told}]
    start = time.process_time()
    claim, _ = attacker.reconstruct(payload, shared, {})
    seconds = time.process_time() - start
    np.save(f"{path}.claim.npy", claim["data"].detach().numpy())
    return {"victim": path, "seconds": seconds, "evaluations": evaluations, "torch": torch.__version__}


def main() -> None:
    """The victims one after another, a line each as soon as it is done."""
    words = argparse.ArgumentParser()
    words.add_argument("config")
    words.add_argument("iterations", type=int)
    words.add_argument("victims", nargs="+")
    words.add_argument("--restarts", type=int, default=1)
    words.add_argument("--tv", type=float)
    asked = words.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    breaching = import_breaching()
    settings = breaching.get_attack_config(asked.config)
    settings.optim.max_iterations = settings.optim.callback = asked.iterations
    settings.restarts.num_trials = asked.restarts
    if asked.tv is not None:
        settings.regularization.total_variation.scale = asked.tv
    for path in asked.victims:
        print(json.dumps(attacked(breaching, path, settings)), flush=True)


if __name__ == "__main__":
    main()
