import dataclasses

import pytest
import torch
from sklearn.metrics import matthews_corrcoef
from torch import nn

from attacks import Knowledge, NotApplicable, Oracle, Targets, infer, inferences
from attacks.attribute import UnusableAttribute
from attacks.attribute_figures import g_mean, matthews, ppv_at

NAMES = [name for name in inferences() if name.startswith("attribute_")]
ASKING = [name for name in NAMES if name != "attribute_imputation"]


def records(count, seed, informative):
    """Three numbers and a binary attribute; with ``informative`` the attribute follows the first number."""
    draw = torch.Generator().manual_seed(seed)
    rest = torch.rand((count, 3), generator=draw)
    attribute = (rest[:, 0] > 0.5).long() if informative else torch.randint(2, (count,), generator=draw)
    return torch.cat([rest, attribute[:, None].float()], 1), attribute


def model_of(weight):
    """A linear model of two classes whose lead is ``weight`` times the attribute's sign."""
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1, 3] = weight
        layer.bias.copy_(torch.tensor([0.0, -weight / 2]))
    return layer


def asked(inputs, labels):
    hidden = inputs.clone()
    hidden[:, 3] = torch.nan
    return Targets(inputs=hidden, labels=labels, column=(3,), values=torch.tensor([[0.0], [1.0]]))


def know(seed=9, informative=False):
    public, attribute = records(200, seed, informative)
    return Knowledge((4,), 2, public=public, public_labels=torch.zeros_like(attribute))


@pytest.mark.parametrize("name", NAMES)
def test_wins_its_sanity_case(name):
    case = inferences()[name].sanity()
    assert case.won(infer(name, case.source, case.knowledge, targets=case.targets, budget=case.budget))


@pytest.mark.parametrize("name", ASKING)
def test_reads_the_attribute_off_a_model_that_hangs_on_it_where_imputation_knows_nothing(name):
    inputs, attribute = records(300, 0, informative=False)
    oracle = Oracle(model_of(6.0), num_classes=2)
    claim = infer(name, oracle, know(), targets=asked(inputs, attribute))
    assert matthews(claim.scores, attribute) > 0.95
    assert claim.queries == 600
    guess = infer("attribute_imputation", oracle, know(), targets=asked(inputs, torch.zeros_like(attribute)))
    assert abs(matthews(guess.scores, attribute)) < 0.2
    assert guess.queries == 0


def test_a_model_blind_to_the_attribute_adds_nothing_to_imputation():
    inputs, attribute = records(300, 0, informative=True)
    labels = torch.zeros_like(attribute)
    oracle = Oracle(model_of(0.0), num_classes=2)
    guess = infer("attribute_imputation", oracle, know(informative=True), targets=asked(inputs, labels))
    both = infer("attribute_weighted", oracle, know(informative=True), targets=asked(inputs, labels))
    assert matthews(guess.scores, attribute) > 0.9
    assert torch.equal(both.scores.argmax(1), guess.scores.argmax(1))
    alone = infer("attribute_label_only", Oracle(model_of(0.0), num_classes=2), know(), targets=asked(inputs, labels))
    assert alone.notes == ("no record is explained by one value alone",)
    assert matthews(alone.scores, attribute) == 0


def test_confidence_score_follows_the_three_cases_of_the_paper():
    table = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.7, 0.3]], [[0.3, 0.7], [0.4, 0.6]]])
    source = Oracle(lambda x: table.flatten(0, 1), num_classes=2)
    inputs, _ = records(3, 0, informative=False)
    claim = infer("attribute_confidence", source, know(), targets=asked(inputs, torch.zeros(3, dtype=torch.long)))
    # One value is right; both are, the second surer; neither is, the second less sure.
    assert claim.scores.argmax(1).tolist() == [0, 1, 1]


def test_never_looks_at_the_hidden_column():
    inputs, attribute = records(50, 0, informative=False)
    hidden, lying = asked(inputs, attribute), asked(inputs, attribute)
    lying.inputs[:, 3] = 1 - attribute.float()
    for name in NAMES:
        claims = [infer(name, Oracle(model_of(2.0), num_classes=2), know(), targets=t).scores for t in (hidden, lying)]
        assert torch.equal(*claims)


def test_works_with_rounded_answers_and_asks_for_confidences_where_it_needs_them():
    inputs, attribute = records(100, 0, informative=False)
    rounded = Oracle(model_of(6.0), num_classes=2, access="rounded")
    assert matthews(infer("attribute_map", rounded, know(), targets=asked(inputs, attribute)).scores, attribute) > 0.9
    labels = Oracle(model_of(6.0), num_classes=2, access="label_only")
    with pytest.raises(NotApplicable, match="access rounded"):
        infer("attribute_map", labels, know(), targets=asked(inputs, attribute))
    claim = infer("attribute_label_only", labels, know(), targets=asked(inputs, attribute))
    assert matthews(claim.scores, attribute) > 0.9


def test_an_absent_or_constant_attribute_is_refused_by_type():
    inputs, attribute = records(20, 0, informative=False)
    oracle = Oracle(model_of(1.0), num_classes=2)
    with pytest.raises(NotApplicable, match=r"targets\.column"):
        infer("attribute_map", oracle, know(), targets=Targets(inputs=inputs, labels=attribute))
    empty = Targets(inputs=inputs, labels=attribute, column=(), values=torch.zeros(2, 0))
    with pytest.raises(UnusableAttribute, match="name the feature positions"):
        infer("attribute_map", oracle, know(), targets=empty)
    same = Targets(inputs=inputs, labels=attribute, column=(3,), values=torch.tensor([[1.0], [1.0]]))
    with pytest.raises(UnusableAttribute, match="constant; give two values"):
        infer("attribute_map", oracle, know(), targets=same)
    public = know().public.clone()
    public[:, 3] = 1
    constant = Knowledge((4,), 2, public=public, public_labels=torch.zeros(200, dtype=torch.long))
    with pytest.raises(UnusableAttribute, match="the same in all 200 records, .* grant records in which it varies"):
        infer("attribute_imputation", oracle, constant, targets=asked(inputs, attribute))


@pytest.mark.parametrize(("change", "says"), [
    ({"column": (9,)}, r"column = \(9,\): the records have features 0 to 3"),
    ({"column": (-1,)}, r"column = \(-1,\): the records have features 0 to 3"),
    ({"values": torch.zeros(2, 2)}, r"values of shape \(2, 2\): give rows of 1"),
    ({"column": (1,)}, r"features beside column = \(1,\) are unknown"),
])  # fmt: skip
def test_a_column_that_is_not_the_hidden_one_is_refused_by_type(change, says):
    inputs, attribute = records(20, 0, informative=False)
    oracle = Oracle(model_of(1.0), num_classes=2)
    with pytest.raises(UnusableAttribute, match=says):
        infer("attribute_map", oracle, know(), targets=dataclasses.replace(asked(inputs, attribute), **change))


def test_figures_agree_with_their_definitions():
    draw = torch.Generator().manual_seed(7)
    scores, truth = torch.rand((400, 2), generator=draw), torch.randint(2, (400,), generator=draw)
    said = scores.argmax(1)
    assert matthews(scores, truth) == pytest.approx(matthews_corrcoef(truth, said))
    sensitivity, specificity = ((said[truth == v] == v).double().mean() for v in (1, 0))
    assert g_mean(scores, truth) == pytest.approx(float((sensitivity * specificity).sqrt()))
    surest = (scores[:, 1] - scores[:, 0]).argsort(descending=True)[:10]
    assert ppv_at(scores, truth, 10) == pytest.approx(float(truth[surest].double().mean()))
    assert matthews(torch.tensor([[1.0, 0.0]] * 4), torch.tensor([0, 1, 0, 1])) == 0
    with pytest.raises(ValueError, match="k = 401"):
        ppv_at(scores, truth, 401)
    with pytest.raises(ValueError, match="these figures are for two values"):
        matthews(torch.rand(4, 3), truth[:4])
