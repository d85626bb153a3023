"""Text from attention gradients: exact on small batches, order included, and inconclusive where the rank runs out."""

import dataclasses

import pytest
import torch
from torch import nn

from attacks import Knowledge, NotApplicable, Observation, reconstruct
from attacks.dager import span_test
from attacks.known_case import LENGTH, WORDS, TinyText, text_case
from attacks.losses import LOSSES
from attacks.reading import readers


def observed(texts, dim=32, seed=0, dtype=torch.float32, rate=None, noise=0.0):
    draw = torch.Generator().manual_seed(seed)
    model = TinyText(dim)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * (torch.rand(parameter.shape, generator=draw) - 0.5))
    model = model.to(dtype)
    names, parameters = zip(*model.named_parameters(), strict=True)
    slopes = torch.autograd.grad(LOSSES["next_token"](model(texts), texts), parameters)
    slopes = [s + noise * torch.randn(s.shape, generator=draw, dtype=s.dtype) for s in slopes]
    update = {n: s if rate is None else -rate * s for n, s in zip(names, slopes, strict=True)}
    return Observation(model, update, "gradient" if rate is None else "delta")


def drawn(count, seed=0):
    return torch.randint(WORDS, (count, LENGTH), generator=torch.Generator().manual_seed(100 + seed))


def know(count, **facts):
    return Knowledge((LENGTH,), WORDS, batch_size=count, loss="next_token", **facts)


def same(claim, texts):
    return sorted(claim.inputs.tolist()) == sorted(texts.tolist())


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_texts_are_rebuilt_word_for_word_and_the_claim_proves_itself(count, dtype):
    texts = drawn(count)
    claim = reconstruct("dager", observed(texts, dtype=dtype), know(count))
    assert same(claim, texts)
    assert claim.objective.item() < 1e-4
    assert not claim.inconclusive
    assert claim.tokens.tolist() == texts.unique().tolist()


def test_a_delta_of_unknown_rate_gives_the_last_words_too():
    texts = drawn(2)
    assert same(reconstruct("dager", observed(texts, rate=0.05), know(2)), texts)


def test_the_batch_size_is_no_need():
    texts = drawn(2)
    claim = reconstruct("dager", observed(texts), know(None))
    assert {tuple(row) for row in texts.tolist()} <= {tuple(row) for row in claim.inputs.tolist()}


def test_more_tokens_than_dimensions_are_inconclusive_and_not_safe():
    claim = reconstruct("dager", observed(drawn(8)), know(8))
    assert claim.inputs is None
    assert claim.inconclusive.startswith("rank: ")
    assert "for 40 tokens" in claim.inconclusive


def test_noise_that_drowns_directions_is_inconclusive():
    claim = reconstruct("dager", observed(drawn(2), noise=1e-1), know(2))
    assert claim.inconclusive.startswith("rank: ")


def test_noise_loses_words_only_where_it_says_so():
    conclusive = 0
    for seed in range(6):
        texts = drawn(2, seed)
        for noise in (0.0, 1e-7, 1e-6, 1e-5, 1e-4):
            obs = observed(texts, seed=seed, noise=noise)
            test = span_test(obs, know(2), readers(obs.model, know(2), obs.update).alone)
            held = all(test.fits[token, place] for row in texts for place, token in enumerate(row[:-1]))
            assert held or test.inconclusive
            assert test.fits.float().mean() < 0.15
            conclusive += not test.inconclusive
    assert conclusive >= 12


def test_an_encoder_tells_the_words_but_not_their_order():
    class Bag(TinyText):
        def forward(self, tokens):
            x = self.embedding(tokens)
            x = x + (self.query(x) @ self.key(x).mT).softmax(-1) @ self.value(x)
            return self.head(x.mean(1))

    model = Bag(32)
    texts = drawn(2)
    names, parameters = zip(*model.named_parameters(), strict=True)
    slopes = torch.autograd.grad(
        LOSSES["cross_entropy"](model(texts), torch.tensor([1, 2])),
        parameters,
        allow_unused=True,
        materialize_grads=True,
    )
    obs = Observation(model, dict(zip(names, slopes, strict=True)), "gradient")
    claim = reconstruct("dager", obs, Knowledge((LENGTH,), WORDS, batch_size=2))
    assert claim.inputs is None
    assert set(texts.unique().tolist()) <= set(claim.tokens.tolist())


def test_what_has_no_tokens_or_no_attention_is_not_applicable():
    dense = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    update = {n: torch.ones_like(p) for n, p in dense.named_parameters()}
    with pytest.raises(NotApplicable, match="tokens"):
        reconstruct("dager", Observation(dense, update, "gradient"), Knowledge((6,), 3))
    obs, knowledge, _ = text_case()
    kept = {n: g for n, g in obs.update.items() if n.startswith(("embedding", "mlp", "head"))}
    with pytest.raises(NotApplicable, match="query, key, value"):
        reconstruct("dager", dataclasses.replace(obs, update=kept), knowledge)


def test_frozen_embeddings_do_not_stop_it():
    obs, knowledge, texts = text_case()
    kept = {n: g for n, g in obs.update.items() if n != "embedding.weight"}
    assert same(reconstruct("dager", dataclasses.replace(obs, update=kept), knowledge), texts)


def test_words_are_read_from_embedding_rows_and_output_bias():
    texts = drawn(4)
    claim = reconstruct("embedding_rows", observed(texts), know(4))
    assert claim.tokens.tolist() == texts.unique().tolist()


def test_under_noise_rows_must_stand_out():
    texts = drawn(1)
    obs = observed(texts, dim=64, noise=1e-3)
    found = set(reconstruct("embedding_rows", obs, know(1)).tokens.tolist())
    assert len(found & set(texts.unique().tolist())) >= 4
    assert len(found - set(texts.unique().tolist())) <= 1


def test_embedding_rows_needs_an_embedding_of_its_own():
    obs, knowledge, _ = text_case()
    kept = {n: g for n, g in obs.update.items() if n != "embedding.weight"}
    with pytest.raises(NotApplicable, match="frozen"):
        reconstruct("embedding_rows", dataclasses.replace(obs, update=kept), knowledge)
    tied = TinyText(32)
    tied.head.weight = tied.embedding.weight
    update = {n: torch.ones_like(p) for n, p in tied.named_parameters()}
    with pytest.raises(NotApplicable, match="output layer"):
        reconstruct("embedding_rows", Observation(tied, update, "gradient"), knowledge)
