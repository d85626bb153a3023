"""The battery: what it runs in which order, what it says of the rest, and how it shares out seconds."""

import pytest

from attacks import reconstructions
from attacks.registry import COSTS
from fedsim.again import attack_again
from fedsim.dry_run import forecast
from fedsim.plan import LEAST, everything
from fedsim.run import run
from fedsim.scenario import Scenario

SLOW = ("dlg", "idlg", "inverting_gradients", "absolute_matching", "adaptive")
BUDGET = {"iterations": 5, "restarts": 1}


def scenario(**fields):
    fields = {"name": "battery", "task": "digits", "federation": {"clients": 2}} | fields
    return Scenario(**fields)


def battery(**fields):
    return {"name": "battery", "budget": BUDGET, "without": SLOW} | fields


def told(result):
    cell = result.cells[0]
    return {a["name"]: a for a in cell["attacks"]}, {a["name"]: a for a in cell["not_run"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(scenario(attacks=[battery()]), tmp_path_factory.mktemp("battery") / "run")


def test_every_attack_is_run_or_says_why_not(finished):
    ran, others = told(finished)
    assert set(ran) | set(others) == set(reconstructions())
    assert not set(ran) & set(others)
    assert ran["analytic"]["status"] == "done"
    assert others["imprint"]["reason"] == "needs planted (rung L10)"
    assert others["tableak"]["reason"].startswith("needs columns")
    assert all(others[name]["reason"] == "excluded by the scenario" for name in SLOW)
    assert any(row["verdict"] == "broken at rung L7 by analytic" for row in finished.summary)
    assert not {row["attack"] for row in finished.summary} & set(others)


def test_the_report_lists_what_was_not_run(finished):
    page = (finished.out / "report.html").read_text()
    for words in ("Registered attacks that this run left out", "needs planted (rung L10)", "excluded by the scenario"):
        assert words in page


def test_the_same_claims_as_when_each_attack_is_named(finished, tmp_path):
    alone = run(scenario(attacks=[{"name": "analytic", "budget": BUDGET}]), tmp_path / "alone")
    named = told(alone)[0]["analytic"]["victims"][0]["figures"]
    assert told(finished)[0]["analytic"]["victims"][0]["figures"] == named


def test_cheapest_first():
    costs = [COSTS.index(reconstructions()[name].cost) for name in everything()]
    assert costs == sorted(costs)


def test_seconds_are_shared_out_among_searches_and_too_few_leave_the_costliest_out(tmp_path):
    seconds = 2 * LEAST
    attacks = [battery(budget=BUDGET | {"seconds": seconds}, without=())]
    ran, others = told(run(scenario(attacks=attacks), tmp_path / "run"))
    searches = {name: a for name, a in ran.items() if reconstructions()[name].cost != "closed form"}
    assert {a["budget"]["seconds"] for a in searches.values()} == {LEAST}
    assert len(searches) <= 2
    assert any("seconds go to cheaper attacks" in a["reason"] for a in others.values())
    assert ran["analytic"]["budget"]["seconds"] == seconds


def test_an_attack_named_beside_the_battery_keeps_its_budget(tmp_path):
    own = {"name": "prior", "victims": 2}
    result = run(scenario(attacks=[battery(), own]), tmp_path / "run")
    ran, others = told(result)
    assert len(ran["prior"]["victims"]) == 2
    assert others["prior"]["reason"].startswith("named beside the battery")


def test_a_battery_on_a_finished_run(tmp_path):
    run(scenario(attacks=["prior"]), tmp_path / "run")
    ran, others = told(attack_again(tmp_path / "run", "battery", budget={"iterations": 1, "restarts": 1, "seconds": 1}))
    assert ran["analytic"]["status"] == "done"
    assert {"prior", "label_counts"} <= set(ran)
    assert "inverting_gradients" in others


def test_what_is_asked_of_the_battery_alone_or_wrongly_is_refused():
    with pytest.raises(ValueError, match=r"attacks.0.without: only the battery"):
        scenario(attacks=[{"name": "prior", "without": ("dlg",)}])
    with pytest.raises(ValueError, match=r"without = 'dgl': unknown; nearest: dlg"):
        scenario(attacks=[battery(without=("dgl",))])
    with pytest.raises(ValueError, match=r"attacks.0.name = 'batery': unknown; nearest: battery"):
        scenario(attacks=["batery"])


def test_a_dry_run_names_the_battery_s_attacks():
    line = next(
        line for line in forecast(scenario(attacks=[battery()]), "inline").splitlines() if "battery" in line[:12]
    )
    assert "analytic" in line
    assert "inverting_gradients" not in line
