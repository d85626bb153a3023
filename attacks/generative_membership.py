"""Membership in a generative model's training data: how well the model explains a record that it may have seen."""

import torch
from torch import Tensor

from attacks.autoencoder import Autoencoder, autoencoder
from attacks.inference import Claim, InferenceNeeds, InferenceSanity, Targets, inference
from attacks.oracle import Oracle
from attacks.ranges import bounds
from attacks.view import Budget, Knowledge, NotApplicable

DRAWS = 64
"""Codes drawn for each record."""
_HELD, _SIDE = 12, 6


def generative(source: Oracle) -> Autoencoder:
    """The oracle's model, still; raises NotApplicable for one that does not generate."""
    model = source.model
    if not isinstance(model, Autoencoder):
        raise NotApplicable("a model that generates (a variational autoencoder)", "L1")
    return model.requires_grad_(False)


def evidence(model: Autoencoder, inputs: Tensor, generator: torch.Generator) -> Tensor:
    """The Monte-Carlo ELBO of each record (T,), in nats."""
    draws = [model.nats(inputs, _noise(model, inputs, generator)).sum(1) for _ in range(DRAWS)]
    return -torch.stack(draws).mean(0)


def _noise(model: Autoencoder, inputs: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn((len(inputs), model.dimension), generator=generator)


def memorising(known: Tensor | None = None) -> InferenceSanity:
    """Random 6x6 pictures of which a small autoencoder was trained on twelve until it knew them, and as many others.

    ``known`` (6, 6) marks the entries that the attack is told; it then must rebuild the members' others.
    """
    draw = torch.Generator().manual_seed(8)
    pictures = (torch.rand((4 * _HELD, 1, _SIDE, _SIDE), generator=draw) < 0.5).float()
    low, high = torch.zeros(pictures.shape[1:]), torch.ones(pictures.shape[1:])
    model = autoencoder(pictures[:_HELD], low, high, draw, latent=8, hidden=64, steps=400)
    asked = pictures[: 2 * _HELD].clone()
    if known is not None:
        asked[:, :, ~known] = torch.nan
    know = Knowledge((1, _SIDE, _SIDE), 1, value_range=(0.0, 1.0), loss="elbo", public=pictures[2 * _HELD :])

    def won(claim: Claim) -> bool:
        members, others = claim.scores[:_HELD], claim.scores[_HELD:]
        if known is not None:
            assert claim.inputs is not None
            rebuilt = claim.inputs[:_HELD, :, ~known].round() == pictures[:_HELD, :, ~known]
            return bool(rebuilt.double().mean() > 0.9)
        return bool((members[:, None] > others[None]).double().mean() > 0.75)

    return InferenceSanity(Oracle(model, num_classes=1, access="white_box"), know, Targets(asked), Budget(), won)


@inference(
    "generative_membership",
    paper="Hilprecht, Härterich and Bernau, PoPETs 2019, with the ELBO (Kingma and Welling, ICLR 2014) for a distance",
    claim="whether a record was trained on, by how many nats the generative model needs for it",
    needs=InferenceNeeds("L1", "oracle", "white_box", targets=("inputs",)),
    cost="seconds",
    stopped_by="weights that stay with the service, early stopping, or more records",
    sanity=memorising,
)
def by_evidence(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """The Monte-Carlo ELBO of each record."""
    assert targets.inputs is not None  # checked by the registry
    return Claim(evidence(generative(source), targets.inputs, generator))


@inference(
    "generative_membership_distance",
    paper="Hilprecht, Härterich and Bernau, PoPETs 2019, the reconstruction attack",
    claim="whether a record was trained on, by how near the generative model's reconstructions come to it",
    needs=InferenceNeeds("L1", "oracle", "white_box", targets=("inputs",)),
    cost="seconds",
    stopped_by="weights that stay with the service, early stopping, or more records",
    sanity=memorising,
)
def by_distance(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """Minus the squared distance of each record to its reconstructions, on average over draws of its code."""
    assert targets.inputs is not None
    model, inputs = generative(source), targets.inputs
    centre, logscale = model.encode(inputs)
    far = [
        (model.decode(centre + logscale.exp() * _noise(model, inputs, generator)) - inputs).flatten(1).square().sum(1)
        for _ in range(DRAWS)
    ]
    return Claim(-torch.stack(far).mean(0))


@inference(
    "generative_membership_calibrated",
    paper="Chen, Yu, Zhang and Fritz, CCS 2020 (GAN-Leaks, section 4.5), with the ELBO for a distance",
    claim="whether a record was trained on, by its nats beside those that a model trained on public data needs",
    needs=InferenceNeeds("L8", "oracle", "white_box", knowledge=("public",), targets=("inputs",)),
    cost="seconds",
    stopped_by="weights that stay with the service, early stopping, or more records",
    sanity=memorising,
)
def calibrated(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """The difference of the two ELBOs, which takes out how hard each record is for anyone."""
    assert targets.inputs is not None
    assert knowledge.public is not None
    model = generative(source)
    low, high = bounds(knowledge.value_range or (0.0, 1.0), knowledge.input_shape)
    reference = autoencoder(knowledge.public, low, high, generator)
    own, other = (evidence(one, targets.inputs, generator) for one in (model, reference))
    return Claim(own - other)
