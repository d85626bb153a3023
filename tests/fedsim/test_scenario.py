import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedsim import Adversary, Attack, ClientDP, Federation, Scenario, Task
from fedsim.scenario import explain


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
    ],
)
def test_bad_input_is_named(fields, words):
    text = problems(**fields)
    for word in words:
        assert word in text


def test_all_problems_come_at_once():
    text = problems(attacks=["analitic"], protocol=[ClientDP(clip=-1.0)], seeds=[1, 1])
    assert all(word in text for word in ("analitic", "clip = -1.0", "seeds"))


def test_the_seed_is_part_of_the_scenario_and_of_nothing_that_describes_a_task():
    assert "seed" not in json.dumps(Task().model_dump())
