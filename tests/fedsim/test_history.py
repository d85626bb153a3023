"""An attack that reads several rounds' sums: what it receives, and the truth that it is scored against."""

import pytest

from fedsim import Attack, Federation, Scenario, SecureAggregation, Task, run


@pytest.fixture(scope="module")
def attacks(tmp_path_factory):
    scenario = Scenario(
        name="rounds",
        task=Task(dataset="digits", model="mlp", model_options={"hidden": [512]}),
        federation=Federation(
            algorithm="fedavg",
            clients=3,
            rounds=4,
            batch_size=1,
            local_steps=2,
            examples_per_client=5,
            learning_rate=0.5,
            weighted=False,
        ),
        protocol=[SecureAggregation(mode="ideal", bits=24)],
        attacks=[Attack(name="sratta", rounds=(1, 4)), Attack(name="analytic", rounds=(4,))],
    )
    result = run(scenario, tmp_path_factory.mktemp("run") / "rounds")
    return {(entry["name"], entry["round"]): entry for entry in result.cells[0]["attacks"]}


def test_is_given_every_round_up_to_its_own(attacks):
    notes = {key: entry["victims"][0]["notes"][0] for key, entry in attacks.items()}
    assert "from 1 sums" in notes["sratta", 1]
    assert "from 4 sums" in notes["sratta", 4]


def test_the_truth_holds_the_examples_of_all_these_rounds_once(attacks):
    owners = {key: entry["victims"][0]["owners"] for key, entry in attacks.items()}
    assert len(owners["sratta", 1]) == len(owners["analytic", 4]) == 6
    assert 6 < len(owners["sratta", 4]) <= 15


def test_what_is_traced_to_a_client_is_counted(attacks):
    victim = attacks["sratta", 4]["victims"][0]
    assert sum(victim["recovered"]) >= 4
    assert victim["traced"]["right"] <= victim["traced"]["pairs"]
    assert "traced" not in attacks["analytic", 4]["victims"][0]
