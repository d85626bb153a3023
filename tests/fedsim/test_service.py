"""The service over HTTP: who is answered what and how much, what the log keeps, and attacks that run unchanged."""

import hashlib
import json

import pytest
import torch
from httpx import HTTPStatusError
from safetensors.torch import load, save
from scipy.stats import binom
from starlette.testclient import TestClient
from torch import nn
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from attacks import AccessDenied, Budget, Knowledge, Oracle, QueryBudgetExceeded, Targets, UnknownCaller, infer
from attacks.controls import Rounding
from fedsim import Scenario, run
from fedsim.callers import Callers, RateLimited, new_key
from fedsim.cli import app as cli
from fedsim.query_log import LogBroken, QueryFile, digests, entries, head_of, suspicion
from fedsim.remote import RemoteOracle
from fedsim.service import application
from fedsim.tasks import TaskError, load_dataset
from fedsim.watching import watched_file

KEYS = {name: new_key() for name in ("holder", "partner", "public", "hurried")}
LIST = {
    "roles": {
        "holder": {"deployment": {"access": "white_box"}},
        "partner": {"deployment": {"access": "confidences", "controls": [{"kind": "rounding", "decimals": 2}]}},
        "public": {"deployment": {"access": "label_only", "query_budget": 50}},
        "hurried": {"deployment": {"access": "top_k"}, "per_minute": 10},
    },
    "callers": {name: {"role": name, "key_sha256": digest} for name, (_, digest) in KEYS.items()},
}


@pytest.fixture(scope="module")
def model():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return network.eval()


@pytest.fixture
def service(model, tmp_path):
    now = [0.0]
    app = application(
        model, input_shape=(1, 8, 8), num_classes=3, callers=Callers(**LIST), log=tmp_path / "log",
        clock=lambda: now[0],
    )  # fmt: skip
    http = TestClient(app)
    return lambda name, **more: RemoteOracle(http, KEYS[name][0], **more), http, now, tmp_path / "log"


def images(count, seed=0):
    return torch.rand((count, 1, 8, 8), generator=torch.Generator().manual_seed(seed))


def test_an_answer_is_that_of_the_oracle_behind_it(service, model):
    reach, *_ = service
    direct = LIST["roles"]["partner"]["deployment"]["controls"]

    local = Oracle(model, num_classes=3, access="confidences", controls=[Rounding(direct[0]["decimals"])])
    remote = reach("partner")
    assert remote.access == local.access == "rounded"
    assert torch.equal(remote.confidences(images(7)), local.confidences(images(7)))
    assert torch.equal(remote.labels(images(7)), local.labels(images(7)))
    assert remote.queries == 14


def test_an_attack_runs_unchanged(service, model):
    reach, *_ = service
    know, asked = Knowledge((1, 8, 8), 3, value_range=(0.0, 1.0)), Targets(images(6), torch.arange(6) % 3)
    for name, access in (("loss_membership", "rounded"), ("label_only_membership", "rounded")):
        local = Oracle(model, num_classes=3, access="confidences", controls=[Rounding(2)])
        assert local.access == access
        there = infer(name, reach("partner"), know, targets=asked, seed=3)
        here = infer(name, local, know, targets=asked, seed=3)
        assert torch.equal(there.scores, here.scores)
        assert there.queries == here.queries


def test_a_white_box_caller_is_sent_the_weights_and_nobody_else_is(service, model):
    reach, *_ = service
    blank = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    sent = reach("holder", architecture=blank).model
    assert all(torch.equal(a, b) for a, b in zip(sent.state_dict().values(), model.state_dict().values(), strict=True))
    with pytest.raises(AccessDenied, match="weights"):
        _ = reach("public").model
    _, http, *_ = service
    refused = http.get("/model", headers={"authorization": f"Bearer {KEYS['partner'][0]}"})
    assert refused.status_code == 403


def test_labels_only_means_labels_only(service):
    reach, *_ = service
    with pytest.raises(AccessDenied, match="confidences are not answered at access level 'label_only'"):
        reach("public").confidences(images(1))


def test_past_the_budget_is_refused_whole_and_counted_and_a_restart_forgets_nothing(service, model):
    reach, _, _, log = service
    caller = reach("public")
    caller.labels(images(40))
    with pytest.raises(QueryBudgetExceeded, match="11 queries asked, 10 of 50 left"):
        caller.labels(images(11))
    assert (caller.queries, caller.refused) == (40, 11)
    caller.labels(images(10))
    again = application(model, input_shape=(1, 8, 8), num_classes=3, callers=Callers(**LIST), log=log)
    with pytest.raises(QueryBudgetExceeded, match="1 queries asked, 0 of 50 left"):
        RemoteOracle(TestClient(again), KEYS["public"][0]).labels(images(1))


def test_an_unknown_caller_is_refused_by_type_and_its_key_is_nowhere(service):
    _, http, _, log = service
    with pytest.raises(UnknownCaller) as caught:
        RemoteOracle(http, "guessed-key")
    assert "guessed-key" not in str(caught.value)
    assert "guessed-key" not in log.read_text()
    assert [entry["error"] for entry in entries(log)] == ["UnknownCaller"]


def test_the_rate_limit_looks_back_one_minute(service):
    reach, _, now, _ = service
    caller = reach("hurried")
    caller.confidences(images(10))
    with pytest.raises(RateLimited, match="at most 10 a minute"):
        caller.confidences(images(1))
    now[0] = 61.0
    caller.confidences(images(10))


def test_bodies_that_are_no_inputs_are_told(service):
    _, http, *_ = service
    headers = {"authorization": f"Bearer {KEYS['partner'][0]}"}
    assert http.post("/labels", content=b"{}", headers=headers).status_code == 422

    for wrong in (images(2)[:, :, :4], images(2) * torch.nan, images(0)):
        reply = http.post("/labels", content=save({"inputs": wrong.contiguous()}), headers=headers)
        assert reply.status_code == 422
        assert "shape (1, 8, 8)" in reply.json()["says"]


def test_the_log_holds_no_inputs_but_shows_near_duplicates(service):
    reach, _, _, log = service
    one = images(1, 5)
    reach("partner").labels(images(20, 6))
    reach("public").labels(one + 0.002 * torch.randn((20, 1, 8, 8), generator=torch.Generator().manual_seed(7)))
    found = suspicion(log)
    assert found["public"]["near_duplicates"] > 0.8
    assert found["partner"]["near_duplicates"] < 0.1
    assert found["public"]["volume"] == 20
    assert all(set(e) == {"time", "caller", "asked", "inputs", "error", "reason", "status", "digests", "margins",
                          "previous"} for e in entries(log))  # fmt: skip
    assert digests(one) == digests(one)


def test_a_log_that_was_changed_is_refused(service, model):
    reach, _, _, log = service
    for _ in range(3):
        reach("partner").labels(images(1))
    lines = log.read_text().splitlines()
    for changed in ([lines[0], lines[2]], [json.dumps({**json.loads(lines[0]), "inputs": 9}), *lines[1:]]):
        log.write_text("\n".join(changed) + "\n")
        with pytest.raises(LogBroken):
            QueryFile(log)


def test_a_log_whose_end_was_cut_off_is_refused_and_one_that_a_crash_left_ahead_of_its_head_is_not(service, model):
    reach, _, _, log = service
    for _ in range(3):
        reach("public").labels(images(1))
    whole, head = log.read_text().splitlines(), head_of(log).read_text()
    for kept in (whole[:-1], []):
        log.write_text("".join(f"{line}\n" for line in kept))
        with pytest.raises(LogBroken, match="the end was cut off; keep the file"):
            application(model, input_shape=(1, 8, 8), num_classes=3, callers=Callers(**LIST), log=log)
    log.unlink()
    with pytest.raises(LogBroken, match="the end was cut off"):
        QueryFile(log)
    log.write_text("".join(f"{line}\n" for line in whole))
    head_of(log).unlink()
    with pytest.raises(LogBroken, match=r"log\.head is missing"):
        QueryFile(log)
    head_of(log).write_text(json.dumps({**json.loads(head), "last": "0" * 64}))
    with pytest.raises(LogBroken, match=r"is not the one that log\.head names"):
        QueryFile(log)
    head_of(log).write_text("{}")
    with pytest.raises(LogBroken, match="does not say how many lines"):
        QueryFile(log)
    before = hashlib.sha256(whole[-2].encode()).hexdigest()
    head_of(log).write_text(json.dumps({"lines": len(whole) - 1, "last": before}))
    QueryFile(log).append({"caller": "public", "inputs": 0, "error": None, "digests": [], "margins": []})
    assert len(list(entries(log))) == len(whole) + 1


def test_harmless_types_are_cast_and_others_refused_and_logged_and_cost_nothing(service, model):
    _, http, _, log = service
    headers = {"authorization": f"Bearer {KEYS['public'][0]}"}

    def ask(inputs):
        return http.post("/labels", content=save({"inputs": inputs.contiguous()}), headers=headers)

    whole = torch.randint(0, 2, (4, 1, 8, 8), generator=torch.Generator().manual_seed(2))
    expected = Oracle(model, num_classes=3, access="label_only").labels(whole.float())
    for dtype in (torch.int64, torch.bool, torch.float64, torch.uint8):
        reply = ask(whole.to(dtype))
        assert reply.status_code == 200
        assert torch.equal(load(reply.content)["labels"], expected)
    for wrong in (whole.to(torch.complex64), whole[:, :, :4], images(2).double() * 1e300):
        assert ask(wrong).status_code == 422
    assert http.get("/about", headers=headers).json()["left"] == 50 - 16
    assert [(e["caller"], e["status"], e["error"]) for e in entries(log)][4:] == [
        *[("public", 422, "Unreadable")] * 3, ("public", 200, None),
    ]  # fmt: skip
    assert [e["reason"] for e in entries(log)][4].startswith("inputs of torch.complex64: need torch.float32")


def test_integers_are_what_a_model_of_words_needs(tmp_path):
    words = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 3))
    app = application(words, input_shape=(3,), num_classes=3, callers=Callers(**LIST), log=tmp_path / "log",
                      dtype=torch.int64)  # fmt: skip
    http, headers = TestClient(app), {"authorization": f"Bearer {KEYS['public'][0]}"}
    for inputs, status in ((torch.ones(2, 3, dtype=torch.int32), 200), (torch.ones(2, 3), 422)):
        assert http.post("/labels", content=save({"inputs": inputs}), headers=headers).status_code == status


def test_a_model_that_fails_is_told_in_a_line_logged_and_costs_nothing(service, model, monkeypatch):
    reach, http, _, log = service
    caller = reach("public")

    def broken(*_):
        raise RuntimeError("cannot divide 0.123")

    monkeypatch.setattr(Oracle, "labels", broken)
    with pytest.raises(HTTPStatusError, match="500: the service failed on this request, which was not counted"):
        caller.labels(images(3))
    monkeypatch.undo()
    assert http.get("/about", headers={"authorization": f"Bearer {KEYS['public'][0]}"}).json()["left"] == 50
    assert {**list(entries(log))[1], "time": 0, "previous": ""} == {
        "time": 0, "caller": "public", "asked": "labels", "inputs": 3, "status": 500, "error": "RuntimeError",
        "reason": "the service failed", "digests": [], "margins": [], "previous": "",
    }  # fmt: skip


def test_every_request_is_logged_whatever_becomes_of_it(service):
    reach, http, _, log = service
    headers = {"authorization": f"Bearer {KEYS['partner'][0]}"}
    reach("partner")
    http.get("/model", headers=headers)
    http.post("/labels", content=b"{}", headers=headers)
    http.get("/" + "x" * 5000)
    http.get("/labels")
    with pytest.raises(AccessDenied):
        reach("public").confidences(images(2))
    seen = [(e["caller"], e["asked"], e["status"], e["error"]) for e in entries(log)]
    assert seen == [
        ("partner", "about", 200, None), ("partner", "model", 403, "AccessDenied"),
        ("partner", "labels", 422, "Unreadable"), ("unknown", "x" * 200, 404, "Not Found"),
        ("unknown", "labels", 405, "Method Not Allowed"), ("public", "about", 200, None),
        ("public", "confidences", 403, "AccessDenied"),
    ]  # fmt: skip
    assert (suspicion(log)["partner"]["refusals"], suspicion(log)["public"]["refused"]) == (2, 2)


def test_what_the_budget_refuses_uses_up_no_rate_and_a_restart_forgets_no_minute(model, tmp_path):
    made = {**LIST, "roles": {**LIST["roles"], "hurried": {
        "deployment": {"access": "top_k", "query_budget": 15}, "per_minute": 10}}}  # fmt: skip
    now, log = [0.0], tmp_path / "log"

    def reach():
        app = application(model, input_shape=(1, 8, 8), num_classes=3, callers=Callers(**made), log=log,
                          clock=lambda: now[0])  # fmt: skip
        return RemoteOracle(TestClient(app), KEYS["hurried"][0])

    caller = reach()
    with pytest.raises(QueryBudgetExceeded, match="16 queries asked, 15 of 15 left"):
        caller.labels(images(16))
    caller.labels(images(8))
    now[0] = 30.0
    again = reach()
    with pytest.raises(RateLimited):
        again.labels(images(3))
    again.labels(images(2))
    with pytest.raises(QueryBudgetExceeded, match="6 queries asked, 5 of 15 left"):
        again.labels(images(6))
    now[0] = 61.0
    again.labels(images(5))


@pytest.mark.parametrize("key", ["clé", "two words", "line\nend", "", "\ud800"])
def test_a_key_that_no_header_can_carry_is_an_unknown_caller(service, key):
    _, http, *_ = service
    with pytest.raises(UnknownCaller, match="unknown caller 'with key [0-9a-f]{8}"):
        RemoteOracle(http, key)


def test_a_list_of_callers_is_checked(tmp_path):
    place = tmp_path / "callers.toml"
    place.write_text('[roles.public]\nper_minute = 5\n[callers.eve]\nrole = "pubic"\nkey_sha256 = "' + "0" * 64 + '"\n')
    with pytest.raises(TaskError, match=r"callers.eve.role = 'pubic': no such role; nearest: public"):
        Callers.load(place)
    with pytest.raises(TaskError, match="cannot be read"):
        Callers.load(tmp_path / "none.toml")


@pytest.fixture(scope="module")
def reader():
    """A model that reads digits well, and digits that it never saw."""
    data = load_dataset("digits", {}, 0)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(3))
    private, held_out = order[:800], order[800:]
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(network[1].weight)
    optimiser = torch.optim.Adam(network.parameters(), 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        cross_entropy(network(data.inputs[private]), data.labels[private]).backward()
        optimiser.step()
    return network.eval(), data.inputs[held_out]


def test_over_http_attacks_raise_alarms_and_honest_callers_seldom(reader, tmp_path):
    network, held_out = reader
    names = [f"honest{i}" for i in range(60)] + ["prober", "copier"]
    keys = {name: new_key() for name in names}
    callers = Callers(
        roles={"public": {"deployment": {"access": "confidences"}}},
        callers={name: {"role": "public", "key_sha256": digest} for name, (_, digest) in keys.items()},
    )
    log = tmp_path / "log"
    app = application(network, input_shape=(1, 8, 8), num_classes=10, callers=callers, log=log)
    http, draw = TestClient(app), torch.Generator().manual_seed(11)
    for name in names[:60]:
        count = int(torch.randint(1, 41, (), generator=draw))
        chosen = torch.randperm(len(held_out) // 2, generator=draw)[:count]
        RemoteOracle(http, keys[name][0]).labels(held_out[len(held_out) // 2 :][chosen])
    know, asked = Knowledge((1, 8, 8), 10, value_range=(0.0, 1.0)), Targets(labels=torch.tensor([3]))
    few = Budget(iterations=20, restarts=1)
    infer("model_inversion_labels", RemoteOracle(http, keys["prober"][0]), know, targets=asked, budget=few)
    RemoteOracle(http, keys["copier"][0]).labels(torch.rand((400, 1, 8, 8), generator=draw))
    found = watched_file(log, network, held_out)
    assert {"near_duplicates", "volume"} <= set(found["prober"].alarms)
    assert "volume" in found["copier"].alarms
    alarmed = sum(bool(found[name].alarms) for name in names[:60])
    assert alarmed <= binom.ppf(0.999, 60, found["prober"].false_alarm_high)
    assert found["prober"].false_alarm_low <= 0.05
    assert found["prober"].lacking is None


def test_too_few_honest_inputs_are_told_and_set_no_threshold(reader, tmp_path):
    network, held_out = reader
    callers = Callers(**LIST)
    app = application(network, input_shape=(1, 8, 8), num_classes=10, callers=callers, log=tmp_path / "log")
    RemoteOracle(TestClient(app), KEYS["partner"][0]).labels(held_out[:9])
    found = watched_file(tmp_path / "log", network, held_out[:79])["partner"]
    assert (found.signals["volume"], found.thresholds, found.alarms) == (9.0, {}, ())
    assert found.false_alarm_rate is None
    assert found.lacking.startswith("79 honest inputs: thresholds and their false alarms need 80")


def test_the_command_names_who_looks_suspicious_and_a_broken_log_ends_it_in_a_line(tmp_path):
    made = Scenario(
        name="served", task={"dataset": "digits", "model": "softmax"}, federation={"clients": 2, "batch_size": 8}
    )
    run(made, tmp_path / "run")
    log = QueryFile(tmp_path / "log")
    for name, inputs in (("eve", images(1, 5).repeat(50, 1, 1, 1)), ("bob", images(5, 6))):
        log.append({"caller": name, "inputs": len(inputs), "error": None, "digests": digests(inputs),
                    "margins": [0.9] * len(inputs)})  # fmt: skip
    for inputs in (5, 1):
        log.append({"caller": "eve", "inputs": inputs, "error": "QueryBudgetExceeded", "digests": [], "margins": []})
    told = CliRunner().invoke(cli, ["watch", str(tmp_path / "run"), "--log", str(tmp_path / "log")])
    assert told.exit_code == 0, told.output
    assert "honest callers on whom any alarm sounds" in told.output
    eve = next(line for line in told.output.splitlines() if line.startswith("eve"))
    assert "near" in eve
    assert "6 inputs in 2" in eve
    missing = CliRunner().invoke(cli, ["watch", str(tmp_path / "run"), "--log", str(tmp_path / "none")])
    assert missing.exit_code == 2
    log.path.write_text("{}\n")
    broken = CliRunner().invoke(cli, ["watch", str(tmp_path / "run"), "--log", str(tmp_path / "log")])
    assert broken.exit_code == 2
    assert "start another log" in broken.output
