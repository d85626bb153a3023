"""Client-side differential privacy: the norm, the noise, and the odd tensors that others let through."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from strategies.base import ClientContext, ClientUpdateError
from strategies.client_dp import ClientDP
from strategies.gaussian import global_norm, noise


def context(seed=0):
    return ClientContext(1, 0, torch.Generator().manual_seed(seed))


def protect(update, seed=0, **fields):
    ctx = context(seed)
    return ClientDP(**fields).protect(update, ctx), ctx.evidence


shapes = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), max_size=4)


@given(shapes, st.floats(1e-3, 1e3), st.floats(1e-6, 1e30), st.integers(0, 2**31), st.booleans())
def test_norm_after_clipping_never_exceeds_the_bound(shapes, clip, scale, seed, double):
    dtype = torch.float64 if double else torch.float32
    generator = torch.Generator().manual_seed(seed)
    update = {str(i): torch.randn(s, generator=generator, dtype=dtype) * scale for i, s in enumerate(shapes)}
    sent, evidence = protect(update, clip=clip, noise_multiplier=0.0)
    assert global_norm(sent.values()) <= clip * (1 + 1e-6)
    assert evidence["client_dp.norm_after"] <= clip * (1 + 1e-12)
    if evidence["client_dp.norm_before"] <= clip:
        assert all(torch.equal(sent[name], update[name]) for name in update)
    else:
        assert global_norm(sent.values()) == pytest.approx(clip, rel=1e-6)


def test_clipping_is_over_the_whole_update_and_keeps_its_direction():
    update = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor(4.0)}
    sent, evidence = protect(update, clip=1.0, noise_multiplier=0.0)
    assert torch.allclose(sent["a"], torch.tensor([0.6, 0.0]))
    assert torch.allclose(sent["b"], torch.tensor(0.8))
    assert evidence["client_dp.norm_before"] == 5.0
    assert update["b"] == 4.0, "the caller's update was changed"


def test_a_scalar_is_clipped_and_noised():
    sent = [protect({"s": torch.tensor(100.0)}, seed=s, clip=1.0)[0]["s"] for s in range(400)]
    assert sent[0].shape == ()
    values = torch.stack(sent)
    assert abs(values.mean() - 1.0) < 5 / math.sqrt(400)
    assert abs(values.std() - 1.0) < 5 / math.sqrt(800)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_zero_update_takes_the_full_noise_in_its_own_type(dtype):
    sent, evidence = protect({"w": torch.zeros(200, 200, dtype=dtype)}, clip=2.0, noise_multiplier=0.5)
    assert sent["w"].dtype == dtype
    assert abs(float(sent["w"].double().std()) - 1.0) < 5 / math.sqrt(80_000)
    assert evidence["client_dp.norm_before"] == 0.0


@pytest.mark.parametrize("source", ["seed", "os"])
def test_noise_has_the_stated_scale_and_is_normal(source):
    n, std = 400_000, 0.3
    drawn = noise(torch.Size((n,)), std, source, torch.Generator().manual_seed(3)) / std
    assert abs(float(drawn.mean())) < 5 / math.sqrt(n)
    assert abs(float(drawn.std()) - 1) < 5 / math.sqrt(2 * n)
    within = [(0.5, 0.382925), (1.0, 0.682689), (2.0, 0.954500), (3.0, 0.997300)]
    for bound, share in within:
        assert abs(float((drawn.abs() < bound).double().mean()) - share) < 5 * math.sqrt(share * (1 - share) / n)


def test_the_evidence_is_measured_on_what_is_sent():
    update = {"w": torch.randn(300, 300, generator=torch.Generator().manual_seed(1)), "b": torch.zeros(0)}
    sent, evidence = protect(update, clip=5.0, noise_multiplier=0.1)
    assert evidence["client_dp.coordinates"] == 90_000
    assert evidence["client_dp.norm_before"] == pytest.approx(float(update["w"].norm()), rel=1e-6)
    assert evidence["client_dp.norm_after"] == pytest.approx(5.0)
    clipped = update["w"] * (5.0 / update["w"].norm())
    assert evidence["client_dp.noise_std"] == pytest.approx(float((sent["w"] - clipped).std()), rel=1e-4)
    assert abs(evidence["client_dp.noise_std"] / 0.5 - 1) < 5 / math.sqrt(180_000)


def test_the_evidence_shows_noise_that_rounding_swallowed():
    _, evidence = protect({"w": torch.full((1000,), 1e8)}, clip=1e12, noise_multiplier=1e-12)
    assert evidence["client_dp.noise_std"] == 0.0


def test_equal_generators_give_equal_noise_and_different_ones_do_not():
    update = {"w": torch.zeros(50), "s": torch.tensor(0.0)}
    first, again, other = (protect(update, seed=s)[0] for s in (7, 7, 8))
    assert all(torch.equal(first[n], again[n]) for n in update)
    assert not torch.equal(first["w"], other["w"])
    assert len(set(torch.cat([first["w"], other["w"], first["s"][None]]).tolist())) == 101


def test_noise_from_the_operating_system_ignores_the_seed():
    update = {"w": torch.zeros(50)}
    assert not torch.equal(*(protect(update, noise_source="os")[0]["w"] for _ in range(2)))
    assert not ClientDP(noise_source="os").reproducible
    assert ClientDP().reproducible


def test_no_global_random_state_is_used():
    before = torch.get_rng_state()
    protect({"w": torch.zeros(50)})
    assert torch.equal(before, torch.get_rng_state())


def test_integers_pass_unchanged_outside_the_norm_and_are_reported():
    update = {"steps": torch.tensor(10**6), "mask": torch.ones(3, dtype=torch.bool), "w": torch.zeros(4)}
    sent, evidence = protect(update)
    assert torch.equal(sent["steps"], update["steps"])
    assert torch.equal(sent["mask"], update["mask"])
    assert evidence["client_dp.unprotected"] == 4
    assert evidence["client_dp.norm_before"] == 0.0
    assert evidence["client_dp.coordinates"] == 4


def test_an_empty_update_is_sent_empty():
    sent, evidence = protect({})
    assert sent == {}
    assert evidence["client_dp.noise_std"] == 0.0


def test_norms_beyond_the_range_of_squares_are_clipped():
    sent, _ = protect({"w": torch.full((9,), 1e300, dtype=torch.float64)}, clip=3.0, noise_multiplier=0.0)
    assert torch.allclose(sent["w"], torch.ones(9, dtype=torch.float64))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_entry_is_named_and_nothing_is_sent(bad):
    with pytest.raises(ClientUpdateError, match=r"'layer\.bias'.*not finite") as caught:
        protect({"layer.weight": torch.zeros(2), "layer.bias": torch.tensor([0.0, bad])})
    assert caught.value.tensor == "layer.bias"
    assert pickle.loads(pickle.dumps(caught.value)).tensor == "layer.bias"


def test_complex_entries_are_refused():
    with pytest.raises(ClientUpdateError, match="complex"):
        protect({"w": torch.zeros(2, dtype=torch.complex64)})


def test_level_example_sends_only_what_private_steps_made():
    with pytest.raises(ClientUpdateError, match="no local step used the private gradient"):
        protect({"w": torch.ones(2)}, level="example")
    ctx = context()
    ctx.evidence["client_dp.releases"] = 1.0
    assert torch.equal(ClientDP(level="example").protect({"w": torch.ones(2)}, ctx)["w"], torch.ones(2))


def test_every_invalid_field_is_named():
    wrong = ClientDP(clip=0.0, noise_multiplier=-1.0, level="user", noise_source="dice", delta=0.0)
    problems = wrong.problems()
    assert [p.split(" = ")[0] for p in problems] == ["clip", "noise_multiplier", "delta", "level", "noise_source"]
    assert ClientDP().problems() == []
    assert ClientDP(noise_multiplier=0.0).problems() == []


@settings(max_examples=20)
@given(st.sampled_from([math.nan, math.inf, -math.inf, -1.0]))
def test_numbers_that_are_no_bounds_are_refused(value):
    assert len(ClientDP(clip=value, noise_multiplier=value, delta=value).problems()) == 3


def test_pydantic_reads_it_and_refuses_unknown_fields():
    adapter = TypeAdapter(ClientDP)
    assert adapter.validate_python({"clip": 2}) == ClientDP(clip=2.0)
    assert adapter.validate_json(adapter.dump_json(ClientDP(clip=2.0))) == ClientDP(clip=2.0)
    with pytest.raises(ValidationError, match="clop"):
        adapter.validate_python({"clop": 2.0})
