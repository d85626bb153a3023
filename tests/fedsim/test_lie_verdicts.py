"""A verdict on a lie says which error stopped it, where clients refused, and what it read where they did not."""

from fedsim import Federation, Scenario, SecureAggregation, run


def test_the_verdict_names_the_error_that_stopped_the_lie(tmp_path):
    scenario = Scenario(
        name="x",
        task={"dataset": "digits", "model": "softmax"},
        federation=Federation(clients=5, batch_size=1, weighted=False),
        protocol=[SecureAggregation(clip=2.0)],
        adversary={"kind": "malicious_protocol", "lie": "both_lists", "victim": 1},
        compare={
            "protocol": {name: [SecureAggregation(clip=2.0, profile=name)] for name in ("paper", "no_consistency")}
        },
    )
    result = run(scenario, tmp_path / "run", engine="inline")
    said = {row["labels"]["protocol"]: row["verdict"] for row in result.results["summary"]}
    assert "the lie was stopped by OverlappingSets (clients 0, 1, 2, 3, 4)" in said["paper"]
    assert said["no_consistency"] == "broken at rung L10 by analytic"
    assert "stopped by OverlappingSets" in (tmp_path / "run" / "report.html").read_text()
