"""What a federation learns: data sets, how they are split over clients, and models, all by name."""

from fedsim.tasks.catalogue import DATASETS, load_dataset
from fedsim.tasks.data import Column, Dataset
from fedsim.tasks.errors import TaskError
from fedsim.tasks.models import MODELS, accuracy_and_loss, build_model
from fedsim.tasks.partition import PARTITIONS, Split, split

__all__ = [
    "DATASETS",
    "MODELS",
    "PARTITIONS",
    "Column",
    "Dataset",
    "Split",
    "TaskError",
    "accuracy_and_loss",
    "build_model",
    "load_dataset",
    "split",
]
