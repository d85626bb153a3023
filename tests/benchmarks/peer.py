"""One attack of PyPI ``breaching``, timed in that package's own environment; prints one line of JSON.

Run by ``attack_cost.py`` as ``python peer.py gradients.npz CONFIG ITERATIONS``: the file holds the LeNet's parameters
(``p0``...), the gradients (``g0``...) and the label. Imports nothing of this repository.
"""

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
    """The model of the benchmark, for 3x32x32 inputs."""
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


def main() -> None:
    path, config, iterations = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    breaching = import_breaching()
    saved = np.load(path)
    count = sum(name.startswith("p") for name in saved.files)
    parameters = [torch.tensor(saved[f"p{i}"]) for i in range(count)]
    gradients = [torch.tensor(saved[f"g{i}"]) for i in range(count)]
    label = torch.tensor(saved["label"])
    classes = len(parameters[-1])

    settings = breaching.get_attack_config(config)
    settings.optim.max_iterations = settings.optim.callback = iterations
    attacker = breaching.attacks.prepare_attack(lenet(classes), nn.CrossEntropyLoss(), settings)
    evaluations = 0
    objective = attacker.objective.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal evaluations
        evaluations += 1
        return objective(*args, **kwargs)

    attacker.objective.forward = counted
    metadata = Metadata(shape=(3, 32, 32), classes=classes, modality="vision", task="classification")
    payload = [{"parameters": parameters, "buffers": None, "metadata": metadata}]
    joint = settings.attack_type == "joint-optimization"
    told = {"num_data_points": 1, "labels": None if joint else label, "local_hyperparams": None}
    shared = [{"gradients": gradients, "buffers": None, "metadata": told}]
    start = time.process_time()
    attacker.reconstruct(payload, shared, {})
    print(json.dumps({"seconds": time.process_time() - start, "evaluations": evaluations, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
