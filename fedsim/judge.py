"""The evaluator of a scenario's inversions: trained once a task and seed, whatever the cell."""

from functools import lru_cache

import torch

from fedsim.evaluator import Evaluator, train_evaluator
from fedsim.experiment import Experiment
from fedsim.scenario import Federation, Scenario, Task
from fedsim.seeds import derive


def judge_of(experiment: Experiment) -> Evaluator:
    """A judge trained on the held-out examples, which no client has; its accuracy is measured on the clients'.

    Raises TaskError where there is none for such data, or a class is missing among the held-out examples.
    """
    scenario = experiment.scenario
    return _trained(scenario.task.model_dump_json(), scenario.federation.clients, experiment.seed)


@lru_cache(maxsize=8)
def _trained(task: str, clients: int, seed: int) -> Evaluator:
    scenario = Scenario(
        name="judge", task=Task.model_validate_json(task), federation=Federation(clients=clients), seeds=(seed,)
    )
    experiment = Experiment(scenario)
    check = torch.cat(list(experiment.division.clients))
    return train_evaluator(experiment.dataset, experiment.division.test, check, derive(seed, "judge"))
