"""Texts: words in place, whole texts, words in no order beside the commonest ones, and secrets."""

import pytest
import torch

from attacks import Reconstruction
from fedsim.leakage import baseline_figures, floor, score
from fedsim.tasks.text import text_dataset
from fedsim.texts import secrets_told, text_figures, words_told
from fedsim.truth import Truth

TEXTS = ["the code is 7 3", "a cat sat there", "the dog is here now", "the cat is here", "the dog sat"]


@pytest.fixture
def data():
    return text_dataset("t", TEXTS, length=5, vocabulary_size=30, secrets=["7 3"])


def claim(inputs=None, tokens=None, inconclusive=""):
    return Reconstruction(inputs, None, torch.zeros(1), tokens=tokens, inconclusive=inconclusive)


def test_figures_of_a_text_with_one_word_moved():
    figures = text_figures(torch.tensor([[1, 2, 3, 4], [2, 3, 4, 1]]), torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4]]))
    assert figures["tokens"].tolist() == [1.0, 0.0]
    assert figures["exact"].tolist() == [1.0, 0.0]
    assert figures["rouge_l"].tolist() == [1.0, 0.75]


def test_words_are_held_against_as_many_common_ones_and_padding_is_no_word(data):
    targets, public = data.inputs[1:2], data.inputs[2:]
    words = [data.vocabulary.index(w) for w in ("<pad>", "cat", "sat", "the")]
    told = words_told(torch.tensor(words), targets, public, data)
    assert (told["held"], told["claimed"]) == (4, 3)
    assert told["recall"] == pytest.approx(2 / 4)
    assert told["precision"] == pytest.approx(2 / 3)
    assert told["guess"] <= told["recall"]


def test_a_secret_counts_where_the_whole_phrase_is_claimed(data):
    told = secrets_told(data.inputs[:1], data.inputs[:2], data.inputs[2:], data)
    assert told == {"told": [1.0], "public": [0.0]}
    broken = data.inputs[:1].clone()
    broken[0, 4] = broken[0, 0]
    assert secrets_told(broken, data.inputs[:2], data.inputs[2:], data)["told"] == [0.0]
    assert secrets_told(broken, data.inputs[1:2], data.inputs[2:], data)["told"] == []


def test_scores_of_words_alone_and_of_whole_texts(data):
    truth = Truth(1, 0, data.inputs[:2], data.labels[:2], 1)
    alone, shown = score(claim(tokens=data.inputs[:2].unique(), inconclusive="rank"), truth, data, data.inputs[2:])
    assert shown is None
    assert alone["words"]["recall"] == 1.0
    assert alone["inconclusive"] == "rank"
    assert "secrets" not in alone
    whole, _ = score(claim(data.inputs[:2].flip(0)), truth, data, data.inputs[2:])
    assert whole["figures"]["exact"] == [1.0, 1.0]
    assert whole["words"]["precision"] == 1.0
    assert whole["secrets"]["told"] == [1.0]
    assert {"tokens_mean", "exact_mean", "rouge_l_nearest_public"} <= set(
        baseline_figures(floor(truth, data, data.inputs[2:], data.labels[2:]), data)
    )
