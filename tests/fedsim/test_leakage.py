"""What a claim is worth: recovery against the best guess, label baselines, claims that are none, no public data."""

import pytest
import torch

from attacks import Reconstruction
from fedsim.leakage import SCALES, baseline_figures, floor, recovered, score
from fedsim.tasks.data import Column, Dataset
from fedsim.truth import Truth

COLUMNS = (
    *(Column(f"c{i}", "numeric") for i in range(7)),
    Column("diagnosis", "categorical", ("none", "some")),
)


def records(rows=40):
    draw = torch.Generator().manual_seed(3)
    numbers = torch.rand((rows, 7), generator=draw)
    ill = (torch.rand(rows, generator=draw) < 0.3).long()
    inputs = torch.cat([numbers, torch.nn.functional.one_hot(ill, 2).float()], dim=1)
    return Dataset("records", "tabular", inputs, ill, ("no", "yes"), (0.0, 1.0), columns=COLUMNS, sensitive="diagnosis")


def truth_in(dataset, rows):
    return Truth(1, 0, dataset.inputs[:rows], dataset.labels[:rows], 1)


def claim(inputs, labels=None, converged=True):
    return Reconstruction(inputs, labels, torch.zeros(1), converged=converged)


def scored(dataset, rows, claimed, public):
    truth = truth_in(dataset, rows)
    guess = floor(truth, dataset, public, dataset.labels[-len(public) :] if len(public) else dataset.labels[:0])
    figures, _ = score(claimed, truth, dataset, public)
    return figures, guess, recovered(figures["figures"], guess, dataset)


def test_seven_right_columns_of_eight_are_a_recovery_and_the_sensitive_one_has_its_own_figure():
    dataset = records()
    one_wrong = dataset.inputs[:2].clone()
    one_wrong[:, 0] = (one_wrong[:, 0] + 0.5) % 1
    figures, guess, hits = scored(dataset, 2, claim(one_wrong), dataset.inputs[20:])
    assert figures["figures"]["columns"] == [7 / 8, 7 / 8]
    assert figures["figures"]["exact"] == [0.0, 0.0]
    assert figures["figures"]["sensitive"] == [1.0, 1.0]
    assert hits == [True, True]
    assert len(baseline_figures(guess, dataset)["sensitive_mean"]) == 2


@pytest.mark.parametrize(
    ("figure", "baseline", "counts"),
    [(7 / 8, 0.2, True), (0.75, 0.0, False), (7 / 8, 0.75, False), (1.0, 7 / 8, True), (1.0, 1.0, False)],
)
def test_a_record_counts_only_where_it_beats_guessing_clearly_or_is_whole(figure, baseline, counts):
    assert SCALES["tabular"].recovered([figure, 0.0], [baseline, 0.5], 8) == [counts, False]


def test_one_lucky_column_in_one_of_many_records_is_no_recovery_and_in_all_of_them_it_is():
    def hits(figures, baseline, columns):
        return SCALES["tabular"].recovered(figures, [baseline] * len(figures), columns)

    assert not any(hits([7 / 8] + [5 / 8] * 11, 0.75, 8))
    assert all(hits([7 / 8] * 12, 0.75, 8))
    assert hits([0.9] + [0.5] * 11, 0.5, 30)[0]
    assert hits([1.0] + [0.5] * 11, 7 / 8, 8)[0]


def test_luck_at_the_rate_of_guessing_recovers_next_to_nothing():
    lucky = 0
    for seed in range(300):
        draw = torch.Generator().manual_seed(seed)
        right = (torch.rand((12, 8), generator=draw) < 0.6).double().mean(1)
        partly = [min(float(one), 7 / 8) for one in right]
        lucky += any(SCALES["tabular"].recovered(partly, [0.6] * 12, 8))
    assert lucky <= 9


def test_labels_are_held_against_class_proportions_too():
    dataset = records(400)
    truth = Truth(1, 0, dataset.inputs[:200], dataset.labels[:200], 1)
    guesses = floor(truth, dataset, dataset.inputs[200:], dataset.labels[200:]).labels
    assert guesses["majority"] == pytest.approx(float((truth.labels == 0).double().mean()))
    assert guesses["proportions"] > 0.9 > guesses["majority"]


def test_a_diverged_claim_has_no_figures_and_counts_neither_way():
    dataset = records()
    figures, _, hits = scored(dataset, 2, claim(None, converged=False), dataset.inputs[20:])
    assert figures["figures"] == {}
    assert hits == []


def test_an_attack_on_inputs_that_found_none_left_every_target_unclaimed():
    dataset = records()
    figures, _, hits = scored(dataset, 2, claim(dataset.inputs[:0]), dataset.inputs[20:])
    assert figures["figures"]["columns"] == [None, None]
    assert hits == [False, False]


def test_without_public_data_there_is_no_baseline_but_still_a_figure():
    dataset = records()
    figures, guess, hits = scored(dataset, 2, claim(dataset.inputs[:2]), dataset.inputs[:0])
    assert hits == [True, True]
    assert figures["figures"]["columns"] == [1.0, 1.0]
    assert baseline_figures(guess, dataset) == {}


def test_each_kind_of_column_has_its_own_share_beside_four_guesses():
    dataset = records()
    wrong = dataset.inputs[:1].clone()
    wrong[:, -2:] = wrong[:, -2:].flip(1)
    figures, guess, _ = scored(dataset, 1, claim(wrong), dataset.inputs[20:])
    assert figures["figures"]["numeric"] == [1.0]
    assert figures["figures"]["categorical"] == [0.0]
    baselines = baseline_figures(guess, dataset)
    for name in ("mean", "median", "marginals", "nearest_public"):
        assert {f"columns_{name}", f"exact_{name}", f"numeric_{name}", f"categorical_{name}"} <= set(baselines)
