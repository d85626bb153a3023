"""A verdict on a lie says which error stopped it, where clients refused, and what it read where they did not."""

from fedsim import ClientDP, Federation, Scenario, SecureAggregation, run
from fedsim.report.reading import Results
from fedsim.report.sections import judgement


def told(folder, **protocols):
    scenario = Scenario(
        name="x",
        task={"dataset": "digits", "model": "softmax"},
        federation=Federation(clients=5, batch_size=1, weighted=False),
        protocol=[SecureAggregation(clip=2.0)],
        adversary={"kind": "malicious_protocol", "lie": "both_lists", "victim": 1},
        compare={"protocol": protocols},
    )
    return run(scenario, folder, engine="inline").results


def test_the_verdict_names_the_error_that_stopped_the_lie(tmp_path):
    names = ("paper", "no_consistency")
    results = told(tmp_path / "run", **{name: [SecureAggregation(clip=2.0, profile=name)] for name in names})
    said = {row["labels"]["protocol"]: row["verdict"] for row in results["summary"]}
    assert "the lie was stopped by OverlappingSets (clients 0, 1, 2, 3, 4)" in said["paper"]
    assert said["no_consistency"] == "broken at rung L10 by analytic"
    assert "stopped by OverlappingSets" in (tmp_path / "run" / "report.html").read_text()
    assert judgement(Results(results), "paper", ()).text == "attack stopped"  # masked words came, and no sum opened


def test_a_clients_own_error_is_no_defence_and_the_verdict_says_whose_it_was(tmp_path):
    noise = ClientDP(clip=1.0, noise_multiplier=0.35)
    weak = SecureAggregation(clip=1.0, profile="no_consistency")
    results = told(tmp_path / "run", noisy=[noise, weak], paper=[SecureAggregation(clip=2.0)])
    assert judgement(Results(results), "noisy", ()).text == "undecided"
    (said,) = {row["verdict"] for row in results["summary"] if row["labels"]["protocol"] == "noisy"}
    assert "the lie came to nothing: the clients' own error BadUpdate (clients 0, 1, 2, 3, 4)" in said
    assert "stopped by" not in said
    page = (tmp_path / "run" / "report.md").read_text()
    assert "noisy, seed 0: round 1, client 0: BadUpdate at stage 'masked'" in page
    (noticed,) = [line for line in page.splitlines() if "some refused to go on" in line]
    assert "paper" in noticed
