import copy
import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import grad_and_value, vmap

from attacks import Budget, Knowledge, NotApplicable, Observation, reconstruct, reconstruct_many
from attacks.batch import Batch
from attacks.dlg import RECIPE as DLG
from attacks.idlg import RECIPE as IDLG
from attacks.inverting import RECIPE as INVERTING
from attacks.lbfgs import ARMIJO, LBFGS, WOLFE
from attacks.matching import gradient_of, prepare
from attacks.objectives import EDGE, absolute, cosine, euclidean, total_variation
from attacks.optimise import labels_of, match
from attacks.registry import Case
from attacks.view import generator
from tests.attacks.conftest import gradient
from tests.attacks.test_idlg import KNOW, inputs, small

SHORT = Budget(iterations=40, restarts=1)


def case(model, label=1, seed=1, know=KNOW):
    x = inputs(know.batch_size, seed=seed)
    y = torch.full((know.batch_size,), label)
    return Case((Observation(model, gradient(model, x, y), "gradient"),), know, generator(seed))


def victim(given, matching):
    target = gradient_of(given.observation, given.knowledge, scale=True)
    return prepare(given, target, labels_of(given), matching)


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def descend(f, starts, steps, memory=10):
    lbfgs = LBFGS(starts, memory)
    evaluate = vmap(grad_and_value(f))
    for _ in range(steps):
        gradients, values = evaluate(lbfgs.points)
        lbfgs.tell(values, gradients)
    return lbfgs


# L-BFGS


def test_lbfgs_finds_a_stationary_point_of_every_row_and_each_row_as_it_would_alone():
    starts = torch.randn((5, 12), dtype=torch.float64, generator=generator(0))
    together = descend(rosenbrock, starts, 400)
    assert (together.g.norm(dim=1) < 1e-5).all()  # as flat as rounded values can tell: about the root of their error
    for row in range(5):
        alone = descend(rosenbrock, starts[row : row + 1], 60)
        some = descend(rosenbrock, starts, 60)
        torch.testing.assert_close(some.x[row], alone.x[0], rtol=1e-6, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(2, 8), seed=st.integers(0, 2**16), spread=st.floats(0, 4))
def test_lbfgs_minimises_any_convex_quadratic(size, seed, spread):
    draw = generator(seed)
    basis, _ = torch.linalg.qr(torch.randn((size, size), dtype=torch.float64, generator=draw))
    curvature = basis @ torch.diag(torch.logspace(0, spread, size, dtype=torch.float64)) @ basis.T
    least = torch.randn(size, dtype=torch.float64, generator=draw)
    found = descend(lambda x: (x - least) @ curvature @ (x - least) / 2, torch.zeros((1, size)).double(), 200)
    torch.testing.assert_close(found.x[0], least, rtol=1e-5, atol=1e-5)


def test_every_accepted_step_meets_the_strong_wolfe_conditions():
    lbfgs = LBFGS(torch.randn((3, 8), dtype=torch.float64, generator=generator(3)), 5)
    evaluate, accepted = vmap(grad_and_value(rosenbrock)), 0
    for _ in range(120):
        f, slope, d, t, steps = (v.clone() for v in (lbfgs.f, lbfgs.slope, lbfgs.d, lbfgs.t, lbfgs.steps))
        gradients, values = evaluate(lbfgs.points)
        lbfgs.tell(values, gradients)
        for row in (lbfgs.steps > steps).nonzero()[:, 0].tolist():
            accepted += 1
            assert values[row] <= f[row] + ARMIJO * t[row] * slope[row]
            assert abs(gradients[row] @ d[row]) <= -WOLFE * slope[row]
    assert accepted > 100


def test_lbfgs_steps_back_from_where_there_is_no_number():
    found = descend(lambda x: (x - 2 * x.log()).sum(), torch.full((1, 3), 1e-3, dtype=torch.float64), 60)
    torch.testing.assert_close(found.x, torch.full((1, 3), 2.0).double())


def test_a_start_without_a_number_is_broken_and_the_others_go_on():
    starts = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    found = descend(lambda x: (x - 2 * x.log()).sum(), starts, 40)
    assert found.broken.tolist() == [True, False]
    torch.testing.assert_close(found.x[1], torch.tensor([2.0]).double())


def test_lbfgs_rows_begin_anew_and_are_dropped():
    starts = torch.randn((3, 6), dtype=torch.float64, generator=generator(1))
    lbfgs = descend(rosenbrock, starts, 20)
    lbfgs.restart(torch.tensor([1]), starts[:1])
    lbfgs.keep(torch.tensor([1]))
    for _ in range(20):
        gradients, values = vmap(grad_and_value(rosenbrock))(lbfgs.points)
        lbfgs.tell(values, gradients)
    torch.testing.assert_close(lbfgs.x[0], descend(rosenbrock, starts, 20).x[0])


# Objectives


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 2**16))
def test_cosine_ignores_scale_and_euclidean_is_relative(scale, seed):
    draw = generator(seed)
    a, b = ({n: torch.randn(4, 3, generator=draw).double() for n in "xy"} for _ in range(2))
    scaled = {n: scale * t for n, t in a.items()}
    torch.testing.assert_close(cosine(scaled, b), cosine(a, b))
    torch.testing.assert_close(euclidean(scaled, {n: scale * t for n, t in b.items()}), euclidean(a, b))
    assert float(euclidean(b, b)) == 0
    assert float(cosine(b, b)) == pytest.approx(0, abs=1e-12)
    assert float(cosine({n: -t for n, t in b.items()}, b)) == pytest.approx(2)
    assert float(euclidean({n: 0 * t for n, t in b.items()}, b)) == pytest.approx(1)
    torch.testing.assert_close(absolute(scaled, b), absolute(a, b))
    assert float(absolute(b, b)) == pytest.approx(0, abs=1e-12)


def test_a_few_coordinates_gone_wrong_rule_the_cosine_and_not_the_absolute_difference():
    truth = {"w": torch.randn(1000, generator=generator(0), dtype=torch.float64)}
    spread, kinked = truth["w"].clone(), truth["w"].clone()
    spread += 0.1 * torch.randn(1000, generator=generator(1), dtype=torch.float64)
    kinked[:2] += (spread - truth["w"]).norm() / 2**0.5
    assert float(cosine({"w": kinked}, truth)) == pytest.approx(float(cosine({"w": spread}, truth)), rel=0.2)
    assert float(absolute({"w": kinked}, truth)) < 0.2 * float(absolute({"w": spread}, truth))


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_total_variation_takes_any_number_of_channels(channels):
    ramp = torch.arange(5.0).repeat(4, 1).expand(2, channels, 4, 5)
    assert float(total_variation(ramp)) == pytest.approx(1.0, abs=EDGE)
    assert float(total_variation(ramp.transpose(2, 3) * 3)) == pytest.approx(3.0, abs=EDGE)
    assert float(total_variation(torch.ones(1, channels, 3, 3))) == 0.0


# The batch


@pytest.mark.parametrize("matching", [DLG.matching, IDLG.matching, INVERTING.matching])
def test_batched_recorded_and_one_by_one_give_the_same_numbers(matching):
    matching = dataclasses.replace(matching, dtype=torch.float64)
    batch = Batch([victim(case(small(seed), label=seed), matching) for seed in range(3)], matching)
    points = torch.rand((4, batch.size), dtype=torch.float64, generator=generator(0))
    owners = [2, 0, 0, 1]
    plain, recorded = batch.bind(owners)(points), batch.bind(owners, record=True)(points)
    batch.loops = True
    looped = batch.bind(owners)(points)
    for one, other in zip(plain + plain, recorded + looped, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("fails", [False, True])
def test_what_compiles_runs_compiled_and_what_does_not_is_told(monkeypatch, fails):
    calls = []

    def stand_in(graph, **options):
        assert options == {"dynamic": False}

        def run(*at):
            calls.append(len(at[0]))
            if fails:
                raise RuntimeError("no C++ compiler")
            return graph(*at)

        return run

    monkeypatch.setattr(torch, "compile", stand_in)
    asked = dataclasses.replace(SHORT, compile=True)
    cases = [case(small(0), label=0)]
    (compiled,), (plain,) = match(cases, IDLG, asked), match([case(small(0), label=0)], IDLG, SHORT)
    assert torch.equal(compiled.inputs, plain.inputs)
    assert (len(calls) == 1) == fails
    assert [note for note in compiled.notes if "compile" in note] == ["not compiled: no C++ compiler"] * fails


class Branching(nn.Module):
    """A model that looks at its data, which no vectorised map can follow."""

    def __init__(self):
        super().__init__()
        self.body = small()

    def forward(self, x):
        return self.body(x) * (1.0 if float(x.detach().sum()) > -1e9 else 2.0)


def test_a_model_that_vmap_cannot_take_is_attacked_one_candidate_at_a_time_and_says_so():
    plain = reconstruct("idlg", case(small()).observation, KNOW, budget=SHORT)
    branching = Branching()
    obs = Observation(branching, {f"body.{n}": t for n, t in case(small()).observation.update.items()}, "gradient")
    know = dataclasses.replace(KNOW, labels=torch.tensor([1]))
    claim = reconstruct("idlg", obs, know, budget=SHORT)
    assert any("one candidate at a time" in note for note in claim.notes)
    torch.testing.assert_close(claim.inputs, plain.inputs, atol=1e-4, rtol=1e-3)


def test_memory_that_does_not_suffice_makes_the_chunks_smaller_and_changes_no_number(monkeypatch):
    few = Budget(iterations=20, restarts=6)
    whole = match([case(small())], INVERTING, few)[0]
    bind = Batch.bind

    def short_of_memory(self, owners, *, record=False):
        if len(owners) > 2:
            evaluate = bind(self, owners, record=record)
            calls = []

            def fails(points):
                calls.append(len(points))
                if len(calls) > 3:
                    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 GB")
                return evaluate(points)

            return fails
        return bind(self, owners, record=record)

    monkeypatch.setattr(Batch, "bind", short_of_memory)
    claim = match([case(small())], INVERTING, few)[0]
    assert any("memory sufficed for 2 candidates" in note for note in claim.notes)
    torch.testing.assert_close(claim.inputs, whole.inputs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_normalisation_and_dropout_keep_their_mode_their_statistics_and_no_global_generator(training):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 4)
        ).train(training)
        x, y = inputs(2), torch.tensor([0, 3])
        update = gradient(copy.deepcopy(model), x, y)
    know = dataclasses.replace(KNOW, batch_size=2, labels=y)
    state, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    claim = reconstruct("inverting_gradients", Observation(model, update, "gradient"), know, budget=SHORT)
    assert claim.converged
    assert any("dropout" in note for note in claim.notes) == training
    assert all(module.training == training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), drawn)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])


# The loop


def test_many_victims_of_several_architectures_get_what_each_would_alone_in_their_order():
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Sigmoid(), nn.Linear(20, 4))
    given = [case(small(0), 0), case(wide, 1), case(small(1), 2, seed=2), case(wide, 3, seed=3)]
    victims = [(one.observation, one.knowledge, seed) for seed, one in enumerate(given)]
    budget = Budget(iterations=15, restarts=2)
    for answer, alone in zip(reconstruct_many("idlg", victims, budget=budget), victims, strict=True):
        expected = reconstruct("idlg", *alone[:2], seed=alone[2], budget=budget)
        assert torch.equal(answer.labels, expected.labels)
        torch.testing.assert_close(answer.inputs, expected.inputs, atol=1e-3, rtol=1e-3)


def test_a_look_alike_with_another_forward_is_not_put_in_one_batch():
    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.body, self.factor = small(), factor

        def forward(self, x):
            return self.factor * self.body(x)

    victims = []
    for factor in (1.0, 3.0):
        given = case(Scaled(factor))
        victims.append((given.observation, dataclasses.replace(KNOW, labels=torch.tensor([1])), 0))
    for claim in reconstruct_many("idlg", victims):
        torch.testing.assert_close(claim.inputs, inputs(), atol=1e-2, rtol=0)


@pytest.mark.parametrize("name", ["dlg", "idlg", "inverting_gradients", "absolute_matching"])
def test_the_same_seed_gives_the_same_claim_and_threads_change_rounding_alone(name):
    obs = case(small()).observation
    budget = Budget(iterations=2, restarts=2)  # few enough that the starts still show
    first, again = (reconstruct(name, obs, KNOW, seed=4, budget=budget) for _ in range(2))
    assert torch.equal(first.inputs, again.inputs)
    other = reconstruct(name, obs, KNOW, seed=5, budget=budget)
    assert not torch.equal(first.inputs, other.inputs)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        threaded = reconstruct(name, obs, KNOW, seed=4, budget=budget)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(first.inputs, threaded.inputs, atol=1e-4, rtol=1e-4)


def test_the_objective_is_that_of_the_candidate_returned():
    model = small()
    given = case(model, know=dataclasses.replace(KNOW, value_range=(0.3, 0.7)))  # the truth lies partly outside
    claim = reconstruct("idlg", given.observation, given.knowledge, budget=SHORT)
    assert claim.inputs.min() >= 0.3 - 1e-6
    assert claim.inputs.max() <= 0.7 + 1e-6
    again = gradient(model, claim.inputs, claim.labels)
    assert float(euclidean(again, given.observation.update)) == pytest.approx(float(claim.objective), rel=1e-3)


def test_the_best_of_the_restarts_is_the_one_of_least_objective():
    obs = case(small()).observation
    alone, draw = [], generator(7)
    for _ in range(4):
        alone.append(match([Case((obs,), KNOW, draw)], IDLG, Budget(iterations=6, restarts=1))[0])
    together = reconstruct("idlg", obs, KNOW, seed=7, budget=Budget(iterations=6, restarts=4))
    assert float(together.objective) == pytest.approx(min(float(claim.objective) for claim in alone), rel=1e-6)


def starting_from(*bad):
    """The recipe of idlg where the named starts are not numbers."""
    count = iter(range(100))

    def start(shape, size, boxed, draw):
        filled = torch.full((size,), math.nan) if next(count) in bad else torch.rand(size, generator=draw)
        return filled.double()

    return dataclasses.replace(IDLG, start=start, tolerance=0.0)


@pytest.mark.parametrize("recipe", [IDLG, INVERTING])
def test_restarts_that_diverge_are_counted_and_never_chosen(recipe):
    recipe = dataclasses.replace(recipe, start=starting_from(0, 2).start, tolerance=0.0)
    claim = match([case(small())], recipe, Budget(iterations=30, restarts=3))[0]
    assert claim.diverged == 2
    assert claim.converged
    assert claim.inputs.isfinite().all()


def test_where_every_restart_diverges_there_is_no_claim():
    claim = match([case(small())], starting_from(0, 1), Budget(iterations=30, restarts=2))[0]
    assert not claim.converged
    assert claim.diverged == 2
    assert claim.inputs is None


def test_a_solved_victim_ends_early_and_its_further_restarts_are_not_run():
    few = reconstruct("idlg", case(small()).observation, KNOW, budget=Budget(iterations=4000, restarts=16))
    assert few.iterations < 400
    assert float(few.objective) < 1e-7


def test_time_that_is_up_ends_the_search_with_what_it_has():
    budget = Budget(iterations=10**6, restarts=50, seconds=0.2)
    claim = reconstruct("inverting_gradients", case(small()).observation, KNOW, budget=budget)
    assert claim.inputs.isfinite().all()
    assert claim.iterations < 10**6


# What does not fit


def tokens():
    return nn.Sequential(nn.Embedding(9, 5), nn.Flatten(), nn.Linear(20, 4))


@pytest.mark.parametrize("name", ["dlg", "idlg", "inverting_gradients", "absolute_matching"])
def test_a_model_that_takes_tokens_is_not_applicable(name):
    model, x = tokens(), torch.tensor([[1, 2, 3, 4]])
    obs = Observation(model, gradient(model, x, torch.tensor([1])), "gradient")
    know = Knowledge(input_shape=(4,), num_classes=4, batch_size=1, labels=torch.tensor([1]))
    with pytest.raises(NotApplicable, match="tokens") as lacking:
        reconstruct(name, obs, know)
    assert lacking.value.rung.startswith("L")
    lines = dataclasses.replace(know, loss="next_token", num_classes=9)
    with pytest.raises(NotApplicable, match="tokens"):
        reconstruct(name, obs, lines)


@pytest.mark.parametrize("name", ["dlg", "idlg", "inverting_gradients", "absolute_matching"])
def test_a_zero_update_is_not_applicable_and_spoils_no_other(name):
    good = case(small()).observation
    zero = Observation(small(), {n: torch.zeros_like(t) for n, t in good.update.items()}, "gradient")
    answers = reconstruct_many(name, [(zero, KNOW, 0), (good, KNOW, 0)], budget=Budget(iterations=3, restarts=1))
    assert isinstance(answers[0], NotApplicable)
    assert answers[1].inputs.shape == (1, 1, 8, 8)


def test_what_does_not_fit_the_model_is_said_in_one_line():
    obs = case(small()).observation
    with pytest.raises(ValueError, match="num_classes = 7"):
        reconstruct("dlg", obs, dataclasses.replace(KNOW, num_classes=7))
    with pytest.raises(ValueError, match="input_shape"):
        reconstruct("dlg", obs, dataclasses.replace(KNOW, input_shape=(1, 9, 9)))
    with pytest.raises(ValueError, match="labels: 3 for batch_size = 1"):
        reconstruct("idlg", obs, dataclasses.replace(KNOW, labels=torch.tensor([1, 2, 3])))
    with pytest.raises(NotApplicable, match="batch_size"):
        reconstruct("idlg", obs, dataclasses.replace(KNOW, batch_size=None))


def test_an_update_of_some_parameters_is_matched_on_those():
    model = small()
    whole = case(model).observation.update
    part = {name: whole[name] for name in ("3.weight", "3.bias", "0.weight")}
    claim = reconstruct("idlg", Observation(model, part, "gradient"), KNOW)
    torch.testing.assert_close(claim.inputs, inputs(), atol=2e-2, rtol=0)
