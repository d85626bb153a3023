"""Tables: two that ship inside scikit-learn, and one of insurance records from a stated generator."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fedsim.seeds import numpy_generator
from fedsim.tasks.data import Column, Dataset
from fedsim.tasks.errors import TaskError


def encode_table(columns: Sequence[Column], values: Mapping[str, np.ndarray]) -> torch.Tensor:
    """(N, width) float32 in [0, 1] from one array per column: numbers, or indices into the column's categories."""
    blocks = []
    for column in columns:
        entries = values[column.name]
        if column.kind == "categorical":
            blocks.append(np.eye(len(column.categories))[entries])
        else:
            blocks.append(((entries - column.low) / (column.high - column.low))[:, None])
    return torch.tensor(np.concatenate(blocks, axis=1), dtype=torch.float32)


def breast_cancer(seed: int, sensitive: str | None = None) -> Dataset:
    """569 tumours, 30 measurements each scaled to [0, 1]; malignant or benign.

    The column ``sensitive`` is told as a category: above its median over the data set, or not.
    """
    from sklearn.datasets import load_breast_cancer

    source = "Wisconsin diagnostic breast cancer (Wolberg, 1995)"
    return _measurements("breast_cancer", load_breast_cancer(), source, sensitive)


def wine(seed: int, sensitive: str | None = None) -> Dataset:
    """178 wines, 13 measurements each scaled to [0, 1]; three cultivars. ``sensitive`` as for ``breast_cancer``."""
    from sklearn.datasets import load_wine

    return _measurements("wine", load_wine(), "Wine recognition (Forina, 1991)", sensitive)


def _measurements(name: str, bunch: Any, source: str, sensitive: str | None) -> Dataset:
    columns = [
        Column(str(feature), "numeric", low=float(entries.min()), high=float(entries.max()))
        for feature, entries in zip(bunch.feature_names, bunch.data.T, strict=True)
    ]
    values = {column.name: bunch.data[:, i] for i, column in enumerate(columns)}
    if sensitive is not None:
        if sensitive not in values:
            remedy = f"name one of {', '.join(values)}"
            raise TaskError("task.data_options.sensitive", sensitive, f"{name} has no such column", remedy)
        median = float(np.median(values[sensitive]))
        values[sensitive] = (values[sensitive] > median).astype(int)
        split = Column(sensitive, "categorical", (f"up to {median:g}", f"above {median:g}"))
        columns = [split if column.name == sensitive else column for column in columns]
    return Dataset(
        name=name,
        modality="tabular",
        inputs=encode_table(columns, values).clamp(0, 1),
        labels=torch.tensor(bunch.target, dtype=torch.int64),
        class_names=tuple(str(n) for n in bunch.target_names),
        value_range=(0.0, 1.0),
        columns=tuple(columns),
        sensitive=sensitive,
        note=f"{source}, UCI, from scikit-learn. Each column is scaled to [0, 1] by its published least and greatest "
        "value over the whole data set, which everyone is taken to know.",
    )


RECORD_COLUMNS = (
    Column("age", "numeric", low=18, high=90),
    Column("income", "numeric", low=0, high=200_000),
    Column("hours", "numeric", low=0, high=80),
    Column("sex", "categorical", ("female", "male")),
    Column("education", "categorical", ("school", "vocational", "bachelor", "master")),
    Column("region", "categorical", ("north", "east", "south", "west", "centre")),
    Column("smoker", "categorical", ("no", "yes")),
    Column("diagnosis", "categorical", ("none", "diabetes", "heart disease", "cancer")),
)


def records(seed: int, rows: int = 2000) -> Dataset:
    """Insurance records of made-up people, drawn from the seed; ``diagnosis`` is sensitive and hangs on the rest.

    Age is uniform in 18..89 years; income log-normal around 12,000 times 1.45 to the power of education (0..3) and
    higher in middle age; hours worked normal around 38, fewer from 65 on. Smoking falls with education. The log-odds
    of each diagnosis against none rise with age, smoking or low income; those of a claim, the label, with diagnosis,
    smoking and age.
    """
    if rows < 10:
        raise TaskError("task.data_options.rows", rows, "too few to split", "use 10 or more")
    draw = numpy_generator(seed, "records")
    age = draw.integers(18, 90, rows)
    sex = draw.integers(0, 2, rows)
    region = draw.choice(5, rows, p=[0.3, 0.15, 0.2, 0.2, 0.15])
    education = draw.choice(4, rows, p=[0.35, 0.3, 0.22, 0.13])
    career = 1 - ((age - 50) / 60) ** 2
    income = 12_000 * 1.45**education * (1 + career) * draw.lognormal(0.2, 0.35, rows)
    hours = draw.normal(np.where(age < 65, 38, 12), 8, rows)
    smoker = (draw.random(rows) < _sigmoid(-0.3 - 0.5 * education)).astype(int)
    poor = income < 20_000
    odds = np.stack(
        [
            np.zeros(rows),
            -5.0 + 0.05 * age + 0.8 * poor,
            -6.5 + 0.07 * age + 1.2 * smoker + 0.4 * sex,
            -6.0 + 0.05 * age + 1.5 * smoker,
        ],
        axis=1,
    )
    # The greatest of log-odds plus Gumbel noise is a draw from the classes with those odds.
    diagnosis = (odds + draw.gumbel(size=odds.shape)).argmax(1)
    claim = draw.random(rows) < _sigmoid(-3.2 + 2.6 * (diagnosis > 0) + 0.9 * smoker + 0.02 * age)
    values = {
        "age": age,
        "income": np.clip(income.round(-2), 0, 200_000),
        "hours": np.clip(hours.round(), 0, 80),
        "sex": sex,
        "education": education,
        "region": region,
        "smoker": smoker,
        "diagnosis": diagnosis,
    }
    return Dataset(
        name="records",
        modality="tabular",
        inputs=encode_table(RECORD_COLUMNS, values),
        labels=torch.tensor(claim.astype(np.int64)),
        class_names=("no claim", "claim"),
        value_range=(0.0, 1.0),
        columns=RECORD_COLUMNS,
        sensitive="diagnosis",
        note="Synthetic: fedsim's generator of insurance records, no real person. age 18..90 years, income 0..200,000, "
        "hours 0..80 a week scaled to [0, 1]; categories one-hot.",
    )


def _sigmoid(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))
