"""What a run says of its costs and errors: measured for the experimenter, absent from the server's view, apart from
what two runs must share."""

import json

import pytest

from fedsim import Attack, ClientDP, Federation, Homomorphic, Scenario, SecureAggregation, Task, run
from fedsim.cost_model import COHORTS, cost_model
from fedsim.dry_run import forecast
from fedsim.experiment import Experiment
from fedsim.federation import Training
from fedsim.protection import protection
from fedsim.wire_forecast import wire_of

CLIP, ENTRIES = 2.0, 650
PROTOCOLS = {
    "none": [],
    "masks": [SecureAggregation(clip=CLIP)],
    "ideal": [SecureAggregation(clip=CLIP, mode="ideal")],
    "decryptor": [Homomorphic(keys="trusted_decryptor")],
    "shared key": [Homomorphic(keys="clients_share_key")],
    "noise": [ClientDP(noise_multiplier=0.1)],
}
EXACT = ("none", "masks", "noise")
"""Protocols of which the same seed gives the same messages, masks apart."""


def scenario(protocols=tuple(PROTOCOLS), **federation):
    fields = {"clients": 5, "rounds": 2, "batch_size": 2, "weighted": False, **federation}
    return Scenario(
        name="costs",
        task=Task(dataset="digits", model="softmax"),
        federation=Federation(**fields),
        attacks=[Attack(name="prior"), Attack(name="analytic")],
        compare={"protocol": {name: PROTOCOLS[name] for name in protocols}},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(scenario(), tmp_path_factory.mktemp("costs") / "run")


@pytest.fixture(scope="module")
def measured(finished):
    return {c["labels"]["protocol"]: finished.results["evidence"][c["digest"]] for c in finished.cells}


@pytest.fixture(scope="module")
def cells(finished):
    return {c["labels"]["protocol"]: c for c in finished.cells}


@pytest.mark.parametrize(
    ("protocol", "client", "server"),
    [
        ("none", {"train"}, {"aggregate"}),
        ("noise", {"train", "client_dp"}, {"aggregate"}),
        ("ideal", {"train", "encode"}, {"aggregate"}),
        (
            "masks",
            {"train", "advertise", "shares", "masked", "consistency", "unmask"},
            {"advertise", "shares", "masked", "consistency", "unmask", "aggregate"},
        ),
        ("decryptor", {"train", "encrypt"}, {"read", "add", "aggregate"}),
        ("shared key", {"train", "encrypt", "decrypt"}, {"read", "add"}),
    ],
)
def test_every_stage_of_both_parties_is_timed(measured, protocol, client, server):
    cost = measured[protocol]["cost"]
    assert set(cost["client_cpu_seconds"]) == client
    assert set(cost["server_cpu_seconds"]) == server
    seconds = [*cost["client_cpu_seconds"].values(), *cost["server_cpu_seconds"].values()]
    assert all(0 < value < 10 for value in seconds)
    assert (cost["fewest_in_a_sum"], cost["most_in_a_sum"], cost["rounds_without_a_sum"]) == (5, 5, 0)


def test_the_error_is_that_of_the_protocols_rounding(measured):
    error = {name: measured[name]["cost"]["largest_error"] for name in PROTOCOLS}
    step = 2 * CLIP / (2**16 - 1)
    assert 0 < error["masks"] < step
    assert error["ideal"] == error["masks"]
    assert 0 < error["decryptor"] < 1e-6
    assert 0 < error["shared key"] < 1e-6
    assert error["none"] < 1e-6
    assert error["noise"] < 1e-6  # noise is part of what the clients send, not an error of the sum


def test_the_decryptor_is_a_party_of_its_own(measured):
    party = measured["decryptor"]["protocol"]["decryptor"]
    assert party["bytes_out_per_round"] == 8 * ENTRIES
    assert party["bytes_in_per_round"] > 16 * ENTRIES
    assert party["cpu_seconds"] > 0


def test_counted_bytes_are_those_of_the_run_but_for_names(measured, cells):
    bytes = measured["masks"]["cost_model"]["bytes"]
    for way in ("up", "down"):
        assert bytes["predicted"][way] == pytest.approx(bytes["measured"][way], rel=0.15)
        assert bytes["predicted"][way] < bytes["measured"][way]
        by_stage = cells["masks"]["cost"][f"bytes_{way}_by_stage"]
        assert sum(by_stage.values()) == pytest.approx(cells["masks"]["cost"][f"bytes_{way}_per_client_round"])


def test_larger_cohorts_cost_more_or_are_refused(measured):
    for protocol in PROTOCOLS:
        rows = measured[protocol]["cost_model"]["extrapolated"]
        assert [row["clients"] for row in rows] == list(COHORTS)
        spent = [row["server_cpu_seconds"] for row in rows if "refused" not in row]
        assert spent == sorted(spent)
        assert len(spent) >= 2
    million = measured["masks"]["cost_model"]["extrapolated"][-1]
    assert (million["neighbours"], million["threshold"]) == (74, 52)
    assert million["bytes_up"] > 8 * ENTRIES  # 16 bits over a million clients need 64-bit words


def test_the_model_says_when_it_counts_no_such_round(measured):
    assert "trusted adder" in measured["ideal"]["cost_model"]["not_compared"]
    one = scenario(("masks",), dropout_stage="shares").cells()[0].scenario
    row = {"round": 1, "cohort": [0, 1, 2, 3, 4], "answered": [0, 1, 2, 3], "dropped": [4], "failed": {}, "lie": None}
    training = Training(({"round": 0}, {**row, "aborted": None}), {})
    wire = {"bytes_up": 1, "bytes_down": 1}
    assert "'shares'" in cost_model(Experiment(one), training, {}, wire)["not_compared"]
    aborted = Training(({**row, "aborted": "too few"},), {})
    assert "not played to its end" in cost_model(Experiment(one), aborted, {}, wire)["not_compared"]


def test_costs_stand_apart_from_what_two_runs_share_and_out_of_the_view(finished, tmp_path):
    first, second = (run(scenario(EXACT), tmp_path / name).results for name in ("a", "b"))
    apart = ("environment", "timings", "evidence")
    compared = [{k: v for k, v in results.items() if k not in apart} for results in (first, second)]
    assert json.dumps(compared[0], sort_keys=True) == json.dumps(compared[1], sort_keys=True)
    assert first["evidence"] != second["evidence"]
    for view in finished.out.rglob("view.json"):
        assert "cpu_seconds" not in view.read_text()
        assert "sample" not in view.read_text()


def test_clients_that_left_are_not_counted_with_an_earlier_rounds_figures(tmp_path):
    result = run(scenario(("none", "masks"), dropout=0.3, rounds=4), tmp_path / "run")
    for cell in result.cells:
        rows = cell["training"][1:]
        stayed, asked = sum(len(row["answered"]) for row in rows), sum(len(row["cohort"]) for row in rows)
        assert stayed < asked
        timings = result.results["timings"][cell["digest"]]["client_cpu_seconds"]
        assert timings["train"]["count"] == stayed
        error = result.results["evidence"][cell["digest"]]["cost"]["largest_error"]
        assert error < 2 * CLIP / (2**16 - 1)


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_a_dry_run_tells_the_bytes_to_come(cells, protocol):
    one = scenario((protocol,)).cells()[0].scenario
    up, down, _ = wire_of(one, Experiment(one))
    cost = cells[protocol]["cost"]
    if protocol == "ideal":
        return  # the trusted party forwards one sum; the forecast is of the protocol that it stands in for
    assert up == pytest.approx(cost["bytes_up_per_client_round"], rel=0.05)
    if protocol != "shared key":  # the model once, then one encrypted sum a round
        assert down == pytest.approx(cost["bytes_down_per_client_round"], rel=0.2)


def test_a_dry_run_prints_a_line_for_each_protocol():
    text = forecast(scenario(("none", "decryptor")), "inline")
    assert "none: 2," in text
    assert "bytes a parameter" in text
    assert "to the decryptor and 5,200 back" in text


def test_protocols_stand_side_by_side_in_the_report(finished):
    page = (finished.out / "report.html").read_text()
    part = page[page.index("Protocols side by side</h2>") :]
    for words in (
        "the server: every update",
        "largest error of the mean",
        "drop-outs survived",
        "1,000,000",
        "refused",
    ):
        assert words in part
    assert "as random bytes are" in part
    assert "the server holds none" in part
    assert "was not measured: compare federation.cohort" in page


@pytest.mark.parametrize(
    ("stack", "reads", "security"),
    [
        ([], "the server: every update", "nothing"),
        ([ClientDP()], "noised first", "nothing"),
        ([SecureAggregation(profile="flower_1_41")], "if the server keeps to the protocol", "32 bits"),
        ([SecureAggregation(mode="ideal")], "a trusted party adds", "trusted party"),
        ([Homomorphic()], "the server: nothing", "128 bits"),
        ([Homomorphic(keys="server_holds_key")], "the server: every update", "none against the server"),
        ([Homomorphic(encrypted_fraction=0.25)], "75% of each update, in clear", "for what is encrypted"),
        ([Homomorphic(encrypted_fraction=0.0)], "everybody on the wire: every update", "nothing is hidden"),
    ],
)
def test_who_reads_what_follows_the_protocol(stack, reads, security):
    said = protection(Scenario(name="x", federation=Federation(clients=5), protocol=stack))
    assert reads in said["reads"]
    assert security in said["security"]


def test_leakage_is_drawn_against_the_clients_in_the_sum(tmp_path):
    crowd = Scenario(
        name="crowd",
        federation=Federation(clients=8, weighted=False),
        protocol=[SecureAggregation(clip=4.0, mode="ideal")],
        attacks=[Attack(name="prior"), Attack(name="analytic")],
        compare={"federation.cohort": {"3": 3, "8": 8}},
    )
    result = run(crowd, tmp_path / "run")
    assert (result.out / "figures" / "contributors-1.svg").exists()
    page = (result.out / "report.html").read_text()
    assert "analytic, 3 in the sum" in page
    assert "analytic, 8 in the sum" in page
    assert "was not measured: compare federation.cohort" not in page
