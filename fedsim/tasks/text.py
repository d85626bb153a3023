"""Text as word tokens of a fixed length, and a corpus of messages with planted secrets."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedsim.seeds import numpy_generator
from fedsim.tasks.data import Dataset
from fedsim.tasks.errors import TaskError

PAD, UNKNOWN = "<pad>", "<unk>"


def words(text: str) -> list[str]:
    """The tokens of a text: lower-case words, numbers and single punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def decode(tokens: Tensor, vocabulary: Sequence[str]) -> str:
    """The words of one example (T,), joined by spaces, without padding."""
    return " ".join(vocabulary[int(token)] for token in tokens if vocabulary[int(token)] != PAD)


def text_dataset(
    name: str,
    texts: Sequence[str],
    *,
    length: int,
    vocabulary_size: int,
    secrets: Sequence[str] = (),
    note: str = "",
) -> Dataset:
    """A next-token data set: each text cut or padded to ``length`` words of the most frequent ``vocabulary_size``.

    A secret must occur in full within an example; TaskError otherwise.
    """
    if length < 2:
        raise TaskError("task.data_options.length", length, "no token would follow another", "use 2 or more")
    if vocabulary_size < 3:
        raise TaskError("task.data_options.vocabulary_size", vocabulary_size, "no room for words", "use 3 or more")
    cut = [words(text)[:length] for text in texts]
    counts = Counter(word for text in cut for word in text)
    # Equal counts in alphabetical order: the ids do not hang on the order of the texts.
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[: vocabulary_size - 2]
    vocabulary = (PAD, UNKNOWN, *ranked)
    ids = {word: i for i, word in enumerate(vocabulary)}
    tokens = torch.tensor([[ids.get(word, 1) for word in text] + [0] * (length - len(text)) for text in cut])
    planted = tuple(" ".join(words(secret)) for secret in secrets)
    shown = [f" {decode(row, vocabulary)} " for row in tokens] if planted else []
    for secret, given in zip(planted, secrets, strict=True):
        if not any(f" {secret} " in text for text in shown):
            raise TaskError(
                "task.data_options.secrets",
                given,
                f"occurs in no example of {length} words of the vocabulary",
                "raise length or vocabulary_size, or leave it out",
            )
    return Dataset(
        name=name,
        modality="text",
        inputs=tokens,
        labels=tokens,
        class_names=(),
        value_range=(0, len(vocabulary) - 1),
        loss="next_token",
        vocabulary=vocabulary,
        secrets=planted,
        note=note,
    )


NAMES = (
    "anna ben carla david elena felix greta hugo irina jonas katya liam maria nils olga paul rosa samir tara viktor "
    "wanda yusuf zoe amir bella chen dina emil farah goran"
)
PLACES = "berlin lyon porto delhi accra lima oslo turin kyoto quito graz leeds cork basel tunis riga"
THINGS = "contract invoice parcel report ticket form letter refund order passport key lease card sample"
MONTHS = "january february march april may june july august september october november december"
PLAIN = (
    "hi {name} , the {thing} arrives on {day} {month} in {place}",
    "{name} please send the {thing} to {other} before {day} {month}",
    "can we meet {name} in {place} on {day} {month} about the {thing}",
    "the {thing} for {name} was sent from {place} on {day} {month}",
    "dear {name} , {other} signed the {thing} in {place} , thank you",
    "call {other} about the {thing} , {name} leaves {place} on {day} {month}",
)
SECRET = (
    "transfer the money to {name} , account {account} , before {day} {month}",
    "hi {other} , the new account of {name} is {account} , thank you",
    "please note {name} , your account {account} was opened in {place}",
)


def messages(seed: int, count: int = 1500, secrets: int = 100) -> Dataset:
    """Made-up short messages of 16 words; ``secrets`` of them tell an account number that occurs nowhere else.

    A message fills one of nine templates with uniformly drawn names, places, things and dates. An account number is
    four groups of two digits, each group one word: guessing one has odds of 1 in 10^8.
    """
    if not 0 <= secrets <= count:
        raise TaskError("task.data_options.secrets", secrets, f"there are {count} messages", "use 0 up to count")
    draw = numpy_generator(seed, "messages")
    accounts = [_account(n) for n in draw.choice(10**8, size=secrets, replace=False)]
    texts = [_fill(draw, SECRET, account) for account in accounts]
    texts += [_fill(draw, PLAIN, "") for _ in range(count - secrets)]
    return text_dataset(
        "messages",
        [texts[i] for i in draw.permutation(count)],
        length=16,
        vocabulary_size=2000,
        secrets=accounts,
        note="Synthetic: fedsim's templates filled from the seed, no real person or account. Words, padded to 16; "
        f"{secrets} of {count} messages tell an account number of their own.",
    )


def _account(number: int) -> str:
    digits = f"{number:08d}"
    return " ".join(digits[i : i + 2] for i in range(0, 8, 2))


def _fill(draw: np.random.Generator, templates: Sequence[str], account: str) -> str:
    name, other = draw.choice(NAMES.split(), size=2, replace=False)
    return str(draw.choice(templates)).format(
        name=name,
        other=other,
        place=draw.choice(PLACES.split()),
        thing=draw.choice(THINGS.split()),
        day=draw.integers(1, 29),
        month=draw.choice(MONTHS.split()),
        account=account,
    )
