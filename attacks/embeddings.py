"""Which words a batch holds: their rows of the embedding move, and those that were answers raise their own logit."""

import math

import torch
from scipy.stats import chi2, norm
from torch import Tensor, nn

from attacks.known_case import text_case
from attacks.probe import device_of, output_layer, proxies, sandbox
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction

STRAYS = 0.1
"""Words that noise alone may bring into the claim, in expectation."""
NOISY = 0.4
"""From this share of negative slopes on, signs are those of noise: an answer must stand out of it."""


def words_read(obs: Observation, know: Knowledge) -> Tensor:
    """Token ids (K,) whose row of an embedding that reads the input moved (Melis et al. 2019, section 4.1).

    Under noise every row moves: then those whose norm stands out of the median row's. Raises NotApplicable without
    such an embedding's update, and where its rows also serve as the output layer, which moves them all.
    """
    layer = output_layer(obs.model, know)
    for name in _embeddings_of_input(obs.model, know):
        if layer is not None and name == layer.weight:
            raise NotApplicable(
                "an embedding of its own (this one is also the output layer, which moves all rows)", "L4"
            )
        if name in obs.update:
            rows = obs.update[name].double().norm(dim=1).cpu()
            middle = float(rows.median())
            if not middle:
                return rows.nonzero()[:, 0]
            width = obs.update[name].shape[1]
            far = chi2.isf(STRAYS / len(rows), width) / chi2.ppf(0.5, width)
            return (rows > middle * math.sqrt(far)).nonzero()[:, 0]
    raise NotApplicable("the update of an embedding that reads the tokens (absent, or frozen)", "L4")


def words_answered(obs: Observation, know: Knowledge) -> Tensor:
    """Token ids (K,) that some position had to answer with: the only negative slopes of the output layer's bias.

    Exact without noise, though a word that the model expects everywhere may be missed. Empty without such a bias.
    """
    layer = output_layer(obs.model, know) if know.loss == "next_token" else None
    if layer is None or layer.bias is None or layer.bias not in obs.update:
        return torch.zeros(0, dtype=torch.long)
    slope = obs.update[layer.bias].double().cpu() * (1 if obs.kind == "gradient" else -1)
    limit = 0.0
    if (slope < 0).double().mean() > NOISY:
        middle = slope.median()
        spread = (slope - middle).abs().median() / norm.ppf(0.75)
        limit = float(middle - norm.isf(STRAYS / len(slope)) * spread)
    return (slope < limit).nonzero()[:, 0]


def _embeddings_of_input(model: nn.Module, know: Knowledge) -> list[str]:
    """The weights of the embeddings that are given the input itself."""
    names, found = {id(p): n for n, p in model.named_parameters()}, []
    if not any(isinstance(module, nn.Embedding) for module in model.modules()):
        return []
    texts = proxies(know, 2, model, torch.Generator().manual_seed(0)).long().to(device_of(model))
    with sandbox(model) as twin, torch.no_grad():
        for name, module in twin.named_modules():
            if isinstance(module, nn.Embedding):
                module.register_forward_hook(
                    lambda _, read, __, name=name: found.append(name) if torch.equal(read[0], texts) else None
                )
        twin(texts)
    read = (id(model.get_submodule(name).weight) for name in dict.fromkeys(found))
    return [names[weight] for weight in read if weight in names]  # no update holds a weight that is parametrised


def _sanity() -> Sanity:
    obs, know, texts = text_case()

    def won(claim: Reconstruction) -> bool:
        return claim.tokens is not None and claim.tokens.tolist() == texts.unique().tolist()

    return Sanity(obs, know, Budget(), won)


@attack(
    "embedding_rows",
    paper="Melis, Song, De Cristofaro, Shmatikov, S&P 2019, section 4.1; of answers, Wainakh et al., PETS 2022",
    claim="which words occur in a client's texts, in no order",
    needs=Needs(rung="L4", sums=True),
    cost="closed form",
    stopped_by="noise on every row, or embeddings that are not trained",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction:
    """Closed form: the rows that moved, and the answers that the output bias names."""
    obs, know = case.observation, case.knowledge
    read, answered = words_read(obs, know), words_answered(obs, know)
    padded = [m.padding_idx for m in obs.model.modules() if isinstance(m, nn.Embedding) and m.padding_idx is not None]
    notes = [f"{len(read)} embedding rows moved, the output bias names {len(answered)} answers"]
    if padded:
        notes.append(f"the row of the padding token {padded[0]} never moves: whether it occurs is not in them")
    return Reconstruction(None, None, torch.zeros(1), notes=tuple(notes), tokens=torch.cat([read, answered]).unique())
