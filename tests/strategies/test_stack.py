"""The onion: order on the way out, the reverse on the way in, and orders that make no sense."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from strategies.base import ClientContext, Defence, Stage
from strategies.client_dp import ClientDP
from strategies.homomorphic import Homomorphic
from strategies.secure_aggregation import SecureAggregation
from strategies.stack import Stack


@dataclass(frozen=True)
class Affine(Defence):
    """Does not commute with its like: x -> a x + b."""

    kind: str
    a: float
    b: float
    stage: ClassVar[Stage] = Stage.ENCODE

    def protect(self, update, context):
        context.evidence[f"{self.kind}.drawn"] = float(torch.rand((), generator=context.generator))
        return {name: self.a * tensor + self.b for name, tensor in update.items()}

    def reveal(self, update):
        return {name: (tensor - self.b) / self.a for name, tensor in update.items()}


@dataclass(frozen=True)
class Mask(Affine):
    stage: ClassVar[Stage] = Stage.HIDE


def contexts():
    evidence = {}
    return lambda kind: ClientContext(1, 0, torch.Generator().manual_seed(len(kind)), evidence)


def test_the_server_undoes_in_reverse_what_the_client_did_in_order():
    stack = Stack((Affine("encode", 2.0, 1.0), Mask("mask", 3.0, 5.0)))
    assert stack.problems() == []
    update = {"w": torch.tensor([1.0, -2.0])}
    sent = stack.protect(update, contexts())
    assert torch.equal(sent["w"], 3 * (2 * update["w"] + 1) + 5)
    assert torch.equal(stack.reveal(sent)["w"], update["w"])


def test_each_defence_gets_the_context_of_its_kind():
    for_kind = contexts()
    Stack((Affine("encode", 1.0, 0.0), Mask("mask", 1.0, 0.0))).protect({"w": torch.zeros(1)}, for_kind)
    evidence = for_kind("any").evidence
    assert set(evidence) == {"encode.drawn", "mask.drawn"}
    assert evidence["encode.drawn"] != evidence["mask.drawn"]


def test_the_empty_stack_is_the_plain_protocol():
    update = {"w": torch.ones(2), "s": torch.tensor(1.0)}
    stack = Stack()
    assert stack.problems() == []
    assert stack.protect(update, contexts()) == update
    assert stack.reveal(update) == update
    assert stack.local_gradient is None
    assert stack.reproducible


@pytest.mark.parametrize(
    "order",
    [
        (Affine("encode", 1.0, 0.0), ClientDP()),
        (Mask("mask", 1.0, 0.0), ClientDP()),
        (Mask("mask", 1.0, 0.0), Affine("encode", 1.0, 0.0)),
    ],
)
def test_a_defence_behind_one_that_hides_the_numbers_is_an_error(order):
    (problem,) = Stack(order).problems()
    assert problem.startswith(f"protocol[1] = {order[1].kind!r}")
    assert f"put {order[1].kind!r} first" in problem
    assert Stack(tuple(reversed(order))).problems() == []


def test_the_same_kind_twice_is_an_error():
    (problem,) = Stack((ClientDP(), ClientDP(clip=2.0))).problems()
    assert "2 x 'client_dp'" in problem


def test_two_defences_that_both_hide_the_update_are_an_error():
    (problem,) = Stack((SecureAggregation(), Homomorphic())).problems()
    assert "'secure_aggregation' and 'homomorphic': an update is hidden once" in problem


def test_all_problems_come_at_once():
    problems = Stack((Mask("mask", 1.0, 0.0), ClientDP(clip=-1.0, delta=2.0), ClientDP())).problems()
    assert [p.split(" = ")[0] for p in problems] == ["protocol[1].clip", "protocol[1].delta", "protocol[1]", "protocol"]


def test_the_stack_says_who_computes_the_local_gradient_and_whether_it_can_be_repeated():
    kind, rule = Stack((Affine("encode", 1.0, 0.0), ClientDP(level="example", clip=3.0))).local_gradient
    assert (kind, rule.clip) == ("client_dp", 3.0)
    assert not Stack((ClientDP(noise_source="os"),)).reproducible


def test_client_dp_leaves_the_server_nothing_to_undo():
    update = {"w": torch.ones(2)}
    assert Stack((ClientDP(),)).reveal(update) == update
