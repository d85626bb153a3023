"""What a claim about texts is worth: words in place, whole texts, the words told in no order, and planted secrets."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attacks import metrics
from fedsim.tasks import Dataset
from fedsim.tasks.text import PAD, decode


def text_figures(claims: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Per text (B,): the share of positions right, whether all are, and the longest common subsequence's F-measure."""
    return {
        "tokens": metrics.token_accuracy(claims, targets),
        "exact": (claims == targets).all(1).double(),
        "rouge_l": torch.tensor([_rouge_l(c, t) for c, t in zip(claims.tolist(), targets.tolist(), strict=True)]),
    }


def _rouge_l(claim: Sequence[int], target: Sequence[int]) -> float:
    """ROUGE-L of two sequences of one length (Lin 2004): the share of their longest common subsequence."""
    row = [0] * (len(target) + 1)
    for word in claim:
        above = 0  # the entry up and to the left
        for i, other in enumerate(target):
            above, row[i + 1] = row[i + 1], above + 1 if word == other else max(row[i], row[i + 1])
    return row[-1] / len(target)


def words_told(tokens: Tensor, targets: Tensor, public: Tensor, dataset: Dataset) -> dict[str, float]:
    """Recall and precision of claimed words (K,) among those of the texts (B, T), padding aside.

    ``guess`` and ``guess_precision`` are what the commonest public words get, as many as were claimed.
    """
    filler = torch.tensor([i for i, word in enumerate(dataset.vocabulary) if word == PAD], dtype=torch.long)
    held, claimed, known = (_distinct(t, filler) for t in (targets, tokens, public))
    order = public.flatten().bincount(minlength=len(dataset.vocabulary)).argsort(descending=True, stable=True)
    common = order[torch.isin(order, known)][: len(claimed)]
    right, guessed = (int(torch.isin(held, words).sum()) for words in (claimed, common))
    return {
        "recall": right / max(1, len(held)),
        "precision": right / max(1, len(claimed)),
        "guess": guessed / max(1, len(held)),
        "guess_precision": guessed / max(1, len(common)),
        "claimed": len(claimed),
        "held": len(held),
    }


def _distinct(tokens: Tensor, filler: Tensor) -> Tensor:
    words = tokens.flatten().unique()
    return words[~torch.isin(words, filler)]


def secrets_told(claims: Tensor, targets: Tensor, public: Tensor, dataset: Dataset) -> dict[str, list[Any]]:
    """For each planted secret in the texts (B, T): whether a claimed text tells it, and whether a public one does."""
    shown, told, known = (_spelt(texts, dataset) for texts in (targets, claims, public))
    held = [secret for secret in dataset.secrets if any(f" {secret} " in text for text in shown)]
    return {
        "told": [float(any(f" {secret} " in text for text in told)) for secret in held],
        "public": [float(any(f" {secret} " in text for text in known)) for secret in held],
    }


def _spelt(texts: Tensor, dataset: Dataset) -> list[str]:
    return [f" {decode(text, dataset.vocabulary)} " for text in texts]
