"""Model extraction: a model of one's own that answers as the one that was asked, within a budget of questions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.fitting import perceptron, settle
from attacks.generative import Linear
from attacks.inference import Claim, InferenceNeeds, InferenceSanity, Targets, inference
from attacks.inversion import search_space
from attacks.inversion_confidences import WIDEST
from attacks.oracle import Oracle
from attacks.view import Budget, Knowledge, NotApplicable

QUERIES = 4000
"""Questions asked where no budget says how many."""
ROUNDS = 8
"""Batches of questions: the first at random, each later one pushed by the student so far towards every class in turn
(Papernot et al. 2017, Jacobian-based augmentation): at random some classes are hardly ever answered."""
PUSHES, FARTHEST = 5, 5.0
"""Steps of a push, and the longest step, in standard deviations of the prior."""
KEPT_BACK = 5
"""One answer in so many is kept back, to choose the student by."""
STEPS = 150
STUDENTS: tuple[tuple[int, ...], ...] = ((), (128,))
"""Hidden widths of the students; the one that agrees best with the answers kept back is the claim."""


def _at_random(know: Knowledge, prior: Linear, count: int, generator: torch.Generator) -> Tensor:
    """Codes (count, d) to ask about: public inputs mixed in pairs where there are some, else draws from the prior."""
    if know.public is None:
        reach = WIDEST * torch.rand((count, 1), generator=generator)
        return reach * torch.randn((count, prior.dimension), generator=generator)
    pairs = torch.randint(len(know.public), (2, count), generator=generator)
    share = torch.rand((count, *[1] * (know.public.ndim - 1)), generator=generator)
    mixed = share * know.public[pairs[0]] + (1 - share) * know.public[pairs[1]]
    return (mixed - prior.mean).flatten(1) @ torch.linalg.pinv(prior.basis)


def _pushed(student: nn.Module, prior: Linear, codes: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """The codes moved down the student's loss on classes drawn at random, each by a pace of its own."""
    wanted = torch.randint(classes, (len(codes),), generator=generator)
    pace = FARTHEST * torch.rand((len(codes), 1), generator=generator)
    for _ in range(PUSHES):
        codes = codes.detach().requires_grad_()
        loss = F.cross_entropy(student(prior.decode(codes)), wanted, reduction="sum")
        slope = torch.autograd.grad(loss, codes)[0]
        codes = codes - pace * slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return codes.detach()


def _answers(source: Oracle, inputs: Tensor) -> Tensor:
    """What the oracle tells about each input, as probabilities (N, K)."""
    if source.access == "label_only":
        return F.one_hot(source.labels(inputs), source.num_classes).to(inputs.dtype)
    shown = source.confidences(inputs).to(inputs.dtype)
    total = shown.sum(1, keepdim=True)
    return torch.where(total > 0, shown / total.clamp_min(1e-12), 1 / source.num_classes)


def _student(hidden: tuple[int, ...], inputs: Tensor, answers: Tensor, generator: torch.Generator) -> nn.Sequential:
    """A network trained to give the answers."""
    widths = [math.prod(inputs.shape[1:]), *hidden, answers.shape[1]]
    student = nn.Sequential(nn.Flatten(), perceptron(widths, generator))
    settle(student, lambda: F.cross_entropy(student(inputs), answers), STEPS)
    return student.eval().requires_grad_(False)


def agreement(stolen: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Share of ``inputs`` to which the stolen model gives the label that the attacked model gave, ``labels`` (N,)."""
    with torch.no_grad():
        return float((stolen(inputs).argmax(1) == labels).double().mean())


def _sanity() -> InferenceSanity:
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, 0, 0, -4], [-4, 4, 0, 0], [0, -4, 4, 0]]))
        layer.bias.zero_()
    fresh = torch.rand((200, 4), generator=torch.Generator().manual_seed(1))
    know, oracle = Knowledge((4,), 3, value_range=(0.0, 1.0)), Oracle(layer, num_classes=3, budget=600)

    def won(claim: Claim) -> bool:
        return claim.model is not None and agreement(claim.model, fresh, layer(fresh).argmax(1)) > 0.95

    return InferenceSanity(oracle, know, Targets(), Budget(), won)


@inference(
    "model_extraction",
    paper="Tramèr, Zhang, Juels, Reiter and Ristenpart, USENIX Security 2016",
    claim="a copy of the model, from its answers alone",
    needs=InferenceNeeds(rung="L1", source="oracle", access="label_only", targets=()),
    cost="seconds",
    stopped_by="a limit on questions",
    sanity=_sanity,
)
def extract(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """``scores`` (1,) is the student's agreement with the answers kept back; ``budget.iterations`` caps the queries.

    Raises NotApplicable where fewer questions are left than it takes to keep two answers back.
    """
    before, prior = source.queries, search_space(knowledge)
    total = min(budget.iterations or QUERIES, QUERIES if source.left is None else source.left)
    if total < 2 * KEPT_BACK:
        raise NotApplicable(f"{2 * KEPT_BACK} queries or more (this budget leaves {total})", "L1")
    each = -(-total // ROUNDS)
    inputs = prior.decode(_at_random(knowledge, prior, min(each, total), generator))
    answers = _answers(source, inputs)
    while len(inputs) < total:
        so_far = _student(STUDENTS[0], inputs, answers, generator)
        codes = _at_random(knowledge, prior, min(each, total - len(inputs)), generator)
        more = prior.decode(_pushed(so_far, prior, codes, source.num_classes, generator))
        inputs, answers = torch.cat([inputs, more]), torch.cat([answers, _answers(source, more)])
    kept = torch.randperm(len(inputs), generator=generator) % KEPT_BACK == 0
    students = [_student(hidden, inputs[~kept], answers[~kept], generator) for hidden in STUDENTS]
    agreed = [agreement(student, inputs[kept], answers[kept].argmax(1)) for student in students]
    best = max(range(len(students)), key=agreed.__getitem__)
    notes = (f"a student with hidden widths {list(STUDENTS[best])} agreed best",)
    return Claim(torch.tensor([agreed[best]]), source.queries - before, model=students[best], notes=notes)
