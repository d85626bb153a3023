"""Text from attention gradients, exactly: their span tells which tokens a layer read, then in which order."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.embeddings import words_answered
from attacks.known_case import text_case
from attacks.labels import mean_gradient_factor
from attacks.losses import LOSSES
from attacks.objectives import cosine
from attacks.probe import device_of, output_layer, sandbox, trace
from attacks.reading import Reader, by_token_and_place, inputs_of, readers
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.spans import Span, dimension, span_of
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction

PREFIXES = 64
"""Beginnings of texts that are followed at once; the best explained are kept."""
FAINT = 100.0
"""A beginning may stray so many times further than noise explains: part of it may lie along what noise drowned."""
SAMPLES = 512
"""Random texts that show in how many dimensions a layer's inputs lie."""
UNVERIFIED = "the claim's own gradient is not the one seen: these texts are not the whole batch"
VERIFIED = 1e-3
"""The claim's own gradient may be so far (one minus the cosine) from the one seen to count as the same."""


@dataclass(frozen=True)
class SpanTest:
    """Which tokens could be where: ``fits`` (vocabulary, T), by the ``span`` that they must lie in.

    The first ``seen`` positions leave a trace; ``expected`` is how many tokens that makes, None where the batch's size
    is not known.
    """

    fits: Tensor
    span: Span
    seen: int
    expected: int | None

    @property
    def inconclusive(self) -> str:
        """Why a token that was not found may be there all the same; empty where it may not."""
        rank, room = self.span.rank, self.span.room
        if (rank < room) if self.expected is None else (rank >= self.expected):
            return ""
        tokens = "an unknown number of" if self.expected is None else str(self.expected)
        return f"rank: {rank} of {room} directions stand out of the noise, for {tokens} tokens"


def span_test(obs: Observation, know: Knowledge, reader: Reader) -> SpanTest:
    """Petrov et al. 2024, section 4.1, with the tolerance that the gradient's own noise asks for."""
    length = know.input_shape[-1]
    table = by_token_and_place(obs.model, reader.first, length)
    # Nothing is predicted from a text's last token: without attention to it, it leaves no trace.
    seen = length - 1 if know.loss == "next_token" else length
    expected = None if know.batch_size is None else know.batch_size * seen
    room = dimension(table.flatten(0, 1))
    span = span_of([obs.update[name] for name in reader.weights], room, expected)
    fits, _ = span.holds(table)
    fits[:, seen:] = False
    return SpanTest(fits.cpu(), span, seen, expected)


def _follow(obs: Observation, know: Knowledge, test: SpanTest, reader: Reader, span: Span) -> Tensor:
    """Texts (N, t), token after token, whose every beginning lies in the span of a layer that reads beginnings.

    Petrov et al. 2024, section 4.2, for decoders; best first. Shorter than the test's positions where none goes on.
    """
    texts, worst = torch.zeros((1, 0), dtype=torch.long), torch.zeros(1, dtype=torch.float64)
    for place in range(test.seen):
        options = test.fits[:, place].nonzero()[:, 0]
        longer = torch.cat([texts.repeat_interleave(len(options), 0), options.repeat(len(texts))[:, None]], 1)
        if not len(longer):
            break
        inside, excess = span.holds(inputs_of(obs.model, reader.first, longer)[:, place], FAINT)
        strays = torch.maximum(worst.repeat_interleave(len(options)), excess.cpu())
        order = strays.argsort()
        order = order[inside.cpu()[order]][:PREFIXES]
        if not len(order):
            break
        texts, worst = longer[order], strays[order]
    return texts if know.batch_size else texts[worst <= 1]


def _last_tokens(obs: Observation, know: Knowledge, texts: Tensor) -> Tensor:
    """The token (N,) that each of N texts (N, T - 1) ends with: the output layer's gradient names it as an answer.

    Without that gradient it is the one that the model holds for likeliest. What
    the known tokens do to it is known too; the rest is, for each text, minus its last hidden state in that token's row.
    """
    layer = output_layer(obs.model, know)
    padded = torch.cat([texts, texts[:, -1:]], 1).to(device_of(obs.model))
    with sandbox(obs.model) as twin:
        outputs, calls = trace(twin.eval(), padded)
    if layer is None or layer.weight not in obs.update:
        return outputs[:, -2].argmax(-1).cpu()
    hidden, answers = calls[layer.name][0][0][:, :-1].double(), padded[:, 1:]
    slopes = outputs[:, :-1].double().softmax(-1)
    hits = torch.zeros_like(slopes).scatter_(2, answers[..., None], 1.0)
    hits[:, -1] = 0
    known = torch.einsum("ntv,ntd->vd", slopes - hits, hidden)
    seen = obs.update[layer.weight].double()
    factor = mean_gradient_factor(obs, know)
    if factor is None or know.batch_size is None:  # rows that no text answers with show how long a step was
        quiet = (hits.sum((0, 1)) == 0) & (known.abs().sum(1) > 0)
        scale = float(((seen * known).sum(1) / known.square().sum(1))[quiet].median())
    else:
        scale = 1 / (factor * know.batch_size * texts.shape[1])
    rest = known - seen / scale
    return torch.linalg.lstsq(hidden[:, -1].T, rest.T).solution.argmax(1).cpu()


def _mismatch(obs: Observation, know: Knowledge, texts: Tensor) -> Tensor:
    """One minus the cosine (scalar) between the gradient that these texts would have given and the one seen."""
    with sandbox(obs.model) as twin:
        twin.eval()
        parameters = {n: p for n, p in twin.named_parameters() if n in obs.update}
        texts = texts.to(device_of(twin))
        slopes = torch.autograd.grad(
            LOSSES[know.loss](twin(texts), texts), list(parameters.values()), allow_unused=True, materialize_grads=True
        )
    sign = 1 if obs.kind == "gradient" else -1
    seen = {name: sign * obs.update[name].to(slope) for name, slope in zip(parameters, slopes, strict=True)}
    return cosine(dict(zip(parameters, slopes, strict=True)), seen).detach()


def _sanity() -> Sanity:
    obs, know, texts = text_case()

    def won(claim: Reconstruction) -> bool:
        return claim.inputs is not None and sorted(claim.inputs.tolist()) == sorted(texts.tolist())

    return Sanity(obs, know, Budget(), won)


@attack(
    "dager",
    paper="Petrov, Dimitrov, Baader, Müller, Vechev, NeurIPS 2024, DAGER: exact gradient inversion for LLMs",
    claim="the tokens of whole texts, from the span of attention gradients",
    needs=Needs(rung="L4", sums=True),
    cost="closed form",
    stopped_by="more tokens than the model is wide, noise, or a precision too low to tell ranks",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction:
    """The token sets by the span test; for decoders of next tokens, then whole texts. No search, so no budget."""
    obs, know = case.observation, case.knowledge
    found = readers(obs.model, know, obs.update)
    if not any(bool(obs.update[name].any()) for name in found.alone.weights):
        raise NotApplicable("an attention gradient that is not zero", "L4")
    test = span_test(obs, know, found.alone)
    notes = [f"{test.span.rank} of {test.span.room} directions stand out of the noise"]
    texts = _whole_texts(obs, know, test, found.causal, notes)
    tokens = torch.cat([test.fits.any(1).nonzero()[:, 0], words_answered(obs, know)]).unique()
    if texts is None:
        unscored = torch.zeros(1)
        return Reconstruction(None, None, unscored, notes=tuple(notes), tokens=tokens, inconclusive=test.inconclusive)
    mismatch = _mismatch(obs, know, texts)
    verified = bool(mismatch < VERIFIED) and know.batch_size in (None, len(texts))
    notes.append(f"the claim's own gradient is the one seen, up to {float(mismatch):.1g}" if verified else UNVERIFIED)
    return Reconstruction(
        texts,
        None,
        mismatch.reshape(1),
        notes=tuple(notes),
        tokens=texts.unique() if verified else torch.cat([tokens, texts.flatten()]).unique(),
        inconclusive="" if verified else test.inconclusive,
    )


def _whole_texts(
    obs: Observation, know: Knowledge, test: SpanTest, causal: Sequence[Reader], notes: list[str]
) -> Tensor | None:
    """Whole texts (N, T), at most ``batch_size``; None, and a note why, where the order of the tokens stays open."""
    if know.loss != "next_token" or test.span.cap == 0:
        notes.append(
            "the order of the tokens stays open: " + ("every token fits" if not test.span.cap else "no decoder")
        )
        return None
    chosen = _teller(obs, know, test, causal)
    texts = _follow(obs, know, test, *chosen) if chosen else torch.zeros((0, 0))
    if texts.shape[1] < test.seen:
        notes.append(f"the order of the tokens stays open: no text could be followed beyond {texts.shape[1]} tokens")
        return None
    texts = texts[: know.batch_size]
    return torch.cat([texts, _last_tokens(obs, know, texts)[:, None]], 1)


def _teller(obs: Observation, know: Knowledge, test: SpanTest, causal: Sequence[Reader]) -> tuple[Reader, Span] | None:
    """The layer that tells most beginnings apart, with its span: of the highest rank, and in the widest room."""
    draw = torch.Generator().manual_seed(0)
    samples = torch.randint(len(test.fits), (SAMPLES, test.fits.shape[1]), generator=draw)
    found = []
    for reader in causal:
        room = dimension(inputs_of(obs.model, reader.first, samples).flatten(0, 1))
        span = span_of([obs.update[name] for name in reader.weights], room, test.expected)
        # As many directions as the layer has outputs: its inputs may span more than its gradient shows.
        if 0 < span.rank < min(room, sum(len(obs.update[name]) for name in reader.weights)):
            found.append((reader, span))
    return max(found, key=lambda pair: (pair[1].rank, pair[1].room), default=None)
