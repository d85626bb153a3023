"""Splits are disjoint, deterministic, in proportion, and never leave a client without examples."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsim.tasks import PARTITIONS, Dataset, TaskError, load_dataset, split


def toy(n=300, classes=5):
    labels = torch.arange(n) % classes
    names = tuple(str(c) for c in range(classes))
    return Dataset("toy", "tabular", torch.arange(n).float()[:, None], labels, names, (0.0, float(n)))


def cut(data, **changes):
    given = {"clients": 6, "kind": "iid", "options": {}, "test_fraction": 0.2, "public_fraction": 0.1, "seed": 0}
    return split(data, **{**given, **changes})


@pytest.mark.parametrize("kind", PARTITIONS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    clients=st.integers(1, 12),
    test=st.floats(0, 0.4),
    public=st.floats(0, 0.4),
    seed=st.integers(0, 2**40),
)
def test_parts_are_disjoint_and_the_same_for_the_same_seed(kind, clients, test, public, seed):
    data = toy()
    arguments = {"kind": kind, "clients": clients, "test_fraction": test, "public_fraction": public, "seed": seed}
    if kind == "dirichlet":
        arguments["options"] = {"alpha": 100.0}  # so mild that no client is left empty
    first, second = cut(data, **arguments), cut(data, **arguments)
    every = torch.cat([*first.clients, first.test, first.public])
    assert len(every.unique()) == len(every) <= len(data)
    assert len(first.clients) == clients
    assert all(len(part) for part in first.clients)
    for a, b in zip(
        (*first.clients, first.test, first.public), (*second.clients, second.test, second.public), strict=True
    ):
        assert a.dtype == torch.int64
        assert torch.equal(a, b)


def test_another_seed_gives_another_split():
    assert not torch.equal(cut(toy()).test, cut(toy(), seed=1).test)


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_nothing_is_lost(kind):
    parts = cut(toy(), kind=kind)
    assert len(torch.cat([*parts.clients, parts.test, parts.public])) == 300


def test_test_and_public_hold_the_classes_in_proportion():
    data = load_dataset("photos", {}, 0)
    parts = cut(data, public_fraction=0.2)
    whole = data.labels.bincount() / len(data)
    for part in (parts.test, parts.public):
        held = data.labels[part].bincount(minlength=6)
        assert (held - whole * len(part)).abs().max() <= 2


def test_no_fraction_no_examples():
    parts = cut(toy(), test_fraction=0, public_fraction=0)
    assert len(parts.test) == len(parts.public) == 0


def test_iid_shares_evenly_and_mixes_the_classes():
    data = toy(600)
    parts = cut(data, clients=4)
    sizes = [len(part) for part in parts.clients]
    assert max(sizes) - min(sizes) <= 1
    assert all(len(data.labels[part].unique()) == 5 for part in parts.clients)


def test_pathological_gives_each_client_its_number_of_classes():
    data = toy()
    parts = cut(data, kind="pathological", options={"num_classes_per_partition": 3})
    assert [len(data.labels[part].unique()) for part in parts.clients] == [3] * 6


def test_shards_hold_few_classes():
    data = toy()
    parts = cut(data, kind="shard", options={"num_shards_per_partition": 1})
    assert all(len(data.labels[part].unique()) <= 2 for part in parts.clients)


def test_a_smaller_alpha_skews_more():
    data = toy(3000)

    def skew(alpha):
        parts = cut(data, kind="dirichlet", options={"alpha": alpha}, clients=5)
        return sum(float(data.labels[p].bincount(minlength=5).max() / len(p)) for p in parts.clients) / 5

    assert skew(0.1) > skew(1.0) > skew(100.0)


def test_text_splits_iid():
    parts = cut(load_dataset("messages", {}, 0))
    assert len(torch.cat([*parts.clients, parts.test, parts.public]).unique()) == 1500


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "dirichlett"}, "task.partition.kind = 'dirichlett': unknown name; nearest: dirichlet"),
        ({"options": {"alpha": 1}}, "task.partition.options.alpha = 1: unknown option"),
        ({"kind": "dirichlet", "options": {"alfa": 1}}, "nearest: alpha"),
        ({"kind": "dirichlet", "options": {"seed": 1}}, "options.seed = 1: unknown option"),
        ({"kind": "dirichlet", "options": {"alpha": 0}}, "strictly greater than zero"),
        ({"kind": "dirichlet", "options": {"alpha": "low"}}, "task.partition = {'kind': 'dirichlet'"),
        (
            {"kind": "dirichlet", "options": {"alpha": 0.001}, "clients": 100},
            "no such partition gives 100 clients examples",
        ),
        ({"kind": "pathological", "options": {"num_classes_per_partition": 9}}, "greater than the number"),
        ({"kind": "shard", "options": {"num_shards_per_partition": 0}}, "task.partition ="),
        ({"clients": 0}, "federation.clients = 0"),
        ({"clients": 211}, "use at most 210 clients"),
        ({"test_fraction": 1.0}, "task.test_fraction = 1.0"),
        ({"public_fraction": -0.1}, "task.public_fraction = -0.1"),
        ({"test_fraction": 0.6, "public_fraction": 0.6}, "0 of 300 examples are left"),
    ],
)
def test_impossible_splits_are_refused_in_one_line(changes, said):
    with pytest.raises(TaskError) as caught:
        cut(toy(), **changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_has_no_classes_to_skew():
    with pytest.raises(TaskError, match="no class labels; use 'iid'"):
        cut(load_dataset("messages", {}, 0), kind="dirichlet")
