import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedsim import Adversary, Attack, ClientDP, Federation, Scenario, SecureAggregation, Task, run
from fedsim.scenario import explain
from fedsim.tasks import TaskError


def problems(**fields):
    with pytest.raises(ValidationError) as caught:
        Scenario(**{"name": "x", **fields})
    return "\n".join(explain(caught.value))


@given(
    clients=st.integers(1, 50),
    batch_size=st.integers(1, 64),
    noise=st.floats(0, 10),
    seeds=st.lists(st.integers(0, 2**31), min_size=1, max_size=4, unique=True),
    knows=st.sets(st.sampled_from(["labels", "batch_size", "public", "learning_rate"])),
)
def test_survives_json_with_its_digest(clients, batch_size, noise, seeds, knows):
    scenario = Scenario(
        name="round trip",
        federation=Federation(clients=clients, batch_size=batch_size),
        protocol=[ClientDP(noise_multiplier=noise)],
        adversary=Adversary(knows=knows),
        seeds=seeds,
        compare={"protocol": {"none": [], "dp": [ClientDP(noise_multiplier=noise)]}},
    )
    again = Scenario.model_validate_json(scenario.model_dump_json())
    assert again == scenario
    assert again.digest == scenario.digest


def test_the_digest_tells_any_two_experiments_apart():
    plain = Scenario(name="x")
    others = [
        Scenario(name="x", seeds=[1]),
        Scenario(name="x", task="wine"),
        Scenario(name="x", protocol=[ClientDP()]),
        Scenario(name="x", attacks=["prior"]),
    ]
    assert len({plain.digest, *(other.digest for other in others)}) == 5
    assert Scenario(name="x").digest == plain.digest


def test_toml_and_python_build_the_same_scenario(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(
        'name = "x"\ntask = "wine"\nattacks = ["prior", {name = "analytic", victims = 3}]\nseeds = [1, 2]\n'
        '[federation]\nclients = 6\n[[protocol]]\nkind = "client_dp"\nnoise_multiplier = 0.5\n'
    )
    built = Scenario(
        name="x",
        task="wine",
        attacks=["prior", Attack(name="analytic", victims=3)],
        seeds=[1, 2],
        federation=Federation(clients=6),
        protocol=[ClientDP(noise_multiplier=0.5)],
    )
    assert Scenario.from_toml(file) == built


def test_cells_are_the_product_of_axes_and_seeds():
    scenario = Scenario(
        name="x",
        seeds=[3, 4],
        compare={
            "protocol": {"none": [], "dp": [ClientDP(noise_multiplier=0.1)]},
            "federation.batch_size": {"one": 1, "eight": 8},
        },
    )
    cells = scenario.cells()
    assert len(cells) == len({cell.digest for cell in cells}) == 8
    last = cells[-1]
    assert (last.labels, last.seed) == ({"protocol": "dp", "federation.batch_size": "eight"}, 4)
    assert last.scenario.federation.batch_size == 8
    assert last.scenario.protocol == (ClientDP(noise_multiplier=0.1),)
    assert last.scenario.compare is None


def test_is_immutable():
    with pytest.raises(ValidationError):
        Scenario(name="x").name = "y"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"attacks": ["analitic"]}, ["attacks.0.name", "'analitic'", "analytic"]),
        ({"federation": {"clients": 3, "cohort": 5}}, ["cohort = 5", "3 clients"]),
        ({"federation": {"local_epochs": 3}}, ["fedsgd", "fedavg"]),
        ({"federation": {"learning_rate": float("nan")}}, ["federation.learning_rate"]),
        ({"protocol": [{"kind": "client_dp", "delta": 0}]}, ["delta = 0"]),
        ({"protocol": [{"kind": "client_dp", "sigma": 1}]}, ["sigma"]),
        ({"protocol": [ClientDP(), ClientDP()]}, ["client_dp"]),
        ({"task": {"loss": "hinge"}}, ["task.loss", "'hinge'", "cross_entropy"]),
        ({"task": {"test_fraction": 0.6, "public_fraction": 0.4}}, ["below 1"]),
        ({"attacks": [{"name": "prior", "rounds": [2]}]}, ["rounds", "1"]),
        ({"seeds": [1, 1]}, ["seeds", "twice"]),
        ({"compare": {"protocols": {"none": []}}}, ["compare.protocols"]),
        ({"compare": {"federation.batchsize": {"1": 1}}}, ["batchsize"]),
        ({"compare": {"protocol": {}}}, ["compare.protocol"]),
        ({"speed": 3}, ["speed"]),
        ({"task": {"modle": "mlp"}}, ["task", "'modle'", "nearest: model"]),
        ({"attacks": []}, ["attacks", "at least 1"]),
        ({"compare": {"federation.clients": [1, 2]}}, ["compare.federation.clients", "dictionary"]),
        ({"task": {"data_options": {"rows": np.arange(3)}}}, ["task.data_options", "ndarray"]),
        ({"task": {"model_options": {"width": float("nan")}}}, ["task.model_options", "float"]),
        ({"compare": {"task.data_options": {"one": {"a": {1: 2}}}}}, ["compare", "'1'"]),
    ],
)
def test_bad_input_is_named(fields, words):
    text = problems(**fields)
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    "compare",
    [
        {"federation.batch_size": {"one": 1, "uno": 1}},
        {"protocol": {"none": [], "default": []}, "federation.clients": {"four": 4}},
        {"federation.clients": {"as it is": 4}, "federation": {"two": {"clients": 4}, "too": {}}},
    ],
)
def test_the_same_experiment_under_two_labels_would_count_twice(compare):
    assert "same experiment" in problems(compare=compare)


def test_two_axes_may_change_one_part():
    compare = {"task": {"wine": {"dataset": "wine"}}, "task.model": {"mlp": "mlp", "softmax": "softmax"}}
    scenario = Scenario(name="x", compare=compare)
    assert [cell.scenario.task.model for cell in scenario.cells()] == ["mlp", "softmax"]
    assert [cell.scenario.task.model for cell in scenario.cells()] == ["mlp", "softmax"]


def test_nothing_in_a_scenario_can_be_changed_in_place():
    scenario = Scenario(
        name="x",
        task=Task(data_options={"columns": {"age": [0, 9]}}, model_options={"hidden": (8, 8)}),
        compare={"federation.clients": {"two": 2, "four": 4}},
    )
    digest = scenario.digest
    for part in (scenario.task.data_options, scenario.task.data_options["columns"], scenario.compare):
        with pytest.raises(TypeError, match="cannot be changed"):
            part["rows"] = 60
        with pytest.raises(TypeError, match="cannot be changed"):
            part.update(rows=60)
        with pytest.raises(TypeError, match="cannot be changed"):
            part |= {"rows": 60}
    with pytest.raises(TypeError, match="assignment"):
        scenario.task.data_options["columns"]["age"][0] = 1
    assert scenario.digest == digest
    for again in (
        Scenario.model_validate_json(scenario.model_dump_json()),
        Scenario(**scenario.model_dump()),
        pickle.loads(pickle.dumps(scenario)),
        copy.deepcopy(scenario),
    ):
        assert again == scenario
        assert again.digest == digest


def test_all_problems_come_at_once():
    text = problems(attacks=["analitic"], protocol=[ClientDP(clip=-1.0)], seeds=[1, 1])
    assert all(word in text for word in ("analitic", "clip = -1.0", "seeds"))


def test_an_attack_that_is_wrong_is_not_reported_as_missing_too():
    zero = problems(attacks=[{"name": "analytic", "budget": {"seconds": 0}}])
    assert zero == "attacks.0.budget.seconds = 0: Input should be greater than 0"
    assert "at least 1 item" in problems(attacks=[])


def test_the_seed_is_part_of_the_scenario_and_of_nothing_that_describes_a_task():
    assert "seed" not in json.dumps(Task().model_dump())


def test_a_bound_on_weights_that_clients_exceed_is_refused_before_work_starts(tmp_path):
    federation = Federation(algorithm="fedavg", clients=3, batch_size=4, examples_per_client=9)
    scenario = Scenario(name="heavy", federation=federation, protocol=[SecureAggregation(clip=8.0, max_weight=8)])
    with pytest.raises(TaskError, match=r"protocol\[0\]\.max_weight = 8: a client uses 9 examples.*set at least 9"):
        run(scenario, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_degree_and_threshold_are_found_for_what_is_to_be_borne():
    bears = SecureAggregation(corrupt=0.33, dropout=0.33, graph="sparse", profile="semi_honest")
    found = bears.terms(bytes(16), 1, 1000, 10)
    assert (found.degree, found.threshold) == (286, 150)  # as Google publishes for n = 1000
    assert SecureAggregation(corrupt=0.2).terms(bytes(16), 1, 10, 10).threshold == 7
    with pytest.raises(ValidationError, match=r"protocol\[0\]\..*needed: corrupt \+ 2 \* dropout < 1"):
        Scenario(name="x", federation=Federation(clients=10), protocol=[SecureAggregation(corrupt=0.4, dropout=0.4)])
    with pytest.raises(ValidationError, match=r"no k-regular graph is safe"):
        Scenario(
            name="x",
            federation=Federation(clients=20),
            protocol=[SecureAggregation(corrupt=0.33, dropout=0.33, graph="sparse")],
        )
