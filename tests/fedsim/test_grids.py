"""The engines: Flower messages in, replies out, and nothing shared in between."""

import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedsim.grids import GridError, InlineGrid, map_tasks, open_grid
from fedsim.grids.base import copy_message, copy_records, one_thread
from tests.fedsim import grid_app
from tests.fedsim.grid_app import REF

ROOT = Path(__file__).resolve().parents[2]
ray_test = [pytest.mark.ray, pytest.mark.xdist_group("ray")]
engines = pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=ray_test)])


def grid_of(engine, clients=4):
    return open_grid(engine, REF, clients, {"answer": 42})


def arrays():
    return ArrayRecord({"weight": Array(torch.arange(6.0).reshape(2, 3).numpy()), "bias": Array(torch.ones(2).numpy())})


def asks(grid, nodes=None, stage="train", **orders):
    shared = arrays()
    return [
        Message(RecordDict({"arrays": shared, "config": ConfigRecord({"round": 1, **orders})}), node, stage)
        for node in (nodes or grid.get_node_ids())
    ]


def plain(replies):
    """What a reply says, apart from process ids."""
    return [
        (
            reply.metadata.src_node_id,
            reply.metadata.message_type,
            reply.error.reason
            if reply.has_error()
            else {
                name: {
                    key: value.data if isinstance(value, Array) else value
                    for key, value in record.items()
                    if key != "process"
                }
                for name, record in reply.content.items()
            },
        )
        for reply in replies
    ]


@engines
def test_every_client_gets_its_own_context_and_replies_come_sorted(engine):
    grid = grid_of(engine)
    assert grid.get_node_ids() == [1, 2, 3, 4]
    asked = asks(grid, nodes=[3, 1, 4, 2])
    replies = grid.send_and_receive(asked)
    assert [r.metadata.src_node_id for r in replies] == [1, 2, 3, 4]
    for partition, reply in enumerate(replies):
        facts = reply.content["facts"]
        assert (facts["partition"], facts["partitions"], facts["answer"], facts["threads"]) == (partition, 4, 42, 1)
    answered = {m.metadata.message_id: m.metadata.dst_node_id for m in asked}
    assert len(answered) == 4
    assert all(answered[r.metadata.reply_to_message_id] == r.metadata.src_node_id for r in replies)
    assert len({r.metadata.message_id for r in replies} | set(answered)) == 8


@engines
def test_state_lasts_from_message_to_message_and_a_failed_call_leaves_none(engine):
    grid = grid_of(engine)
    grid.send_and_receive(asks(grid))
    grid.send_and_receive(asks(grid, fail=2))
    replies = grid.send_and_receive(asks(grid, nodes=[1, 2, 2]))
    assert [(r.metadata.src_node_id, r.content["metrics"]["count"]) for r in replies] == [(1, 3), (2, 2), (2, 3)]
    assert [grid.states[p]["rounds"]["count"] for p in range(4)] == [3, 3, 2, 2]


@engines
def test_a_client_that_raises_answers_with_its_own_exception_first(engine):
    grid = grid_of(engine)
    replies = {r.metadata.src_node_id: r for r in grid.send_and_receive(asks(grid, fail=2, exit=3))}
    assert replies[2].error.reason.startswith("ValueError: the batch is empty (grid_app.py, line ")
    assert replies[3].error.reason.startswith("SystemExit: leaving")
    assert replies[1].has_content()
    assert replies[4].has_content()


@engines
def test_clients_can_spoil_nobodys_memory_but_their_own(engine):
    grid = grid_of(engine)
    record = RecordDict({"arrays": arrays(), "config": ConfigRecord({"list": [7, 8]})})
    messages = [Message(record, node, "query.vandal") for node in grid.get_node_ids()]
    for _ in range(2):
        replies = grid.send_and_receive(messages)
        assert [r.content["found"]["list0"] for r in replies] == [7] * 4
    assert record["config"]["list"] == [7, 8]
    assert record["arrays"] == arrays()
    assert [r.content["facts"]["answer"] for r in grid.send_and_receive(asks(grid))] == [42] * 4


def test_a_reply_is_a_copy_too():
    kept = []
    grid = InlineGrid(grid_app.app, 1, {"answer": 42})
    original = grid._app

    def keeping(message, context):
        kept.append(original(message, context))
        return kept[-1]

    grid._app = keeping
    (reply,) = grid.send_and_receive(asks(grid))
    kept[0].content["arrays"]["weight"].data = b""
    kept[0].content["metrics"]["count"] = 99
    assert reply.content["arrays"]["weight"].numpy().shape == (2, 3)
    assert reply.content["metrics"]["count"] == 1


@pytest.mark.parametrize("stage", ["query.nonsense", "query.stranger", "query.unheard_of", "evaluate"])
def test_a_client_that_does_not_answer_properly_is_an_error_reply(stage):
    grid = grid_of("inline")
    assert all(reply.has_error() for reply in grid.send_and_receive(asks(grid, stage=stage)))


def test_pushed_messages_can_be_pulled_once():
    grid = grid_of("inline")
    ids = grid.push_messages(asks(grid))
    assert [r.metadata.reply_to_message_id for r in grid.pull_messages(ids[1:])] == ids[1:]
    assert [r.metadata.reply_to_message_id for r in grid.pull_messages(ids)] == ids[:1]


def test_a_client_that_is_out_of_time_is_left_out():
    grid = grid_of("inline")
    assert grid.send_and_receive(asks(grid), timeout=0) == []
    assert len(grid.send_and_receive(asks(grid), timeout=3600)) == 4


def test_no_messages_no_replies():
    assert grid_of("inline").send_and_receive([]) == []


@pytest.mark.parametrize(
    ("open_it", "said"),
    [
        (lambda: open_grid("rya", REF, 1, {}), "engine = 'rya': must be one of inline, ray"),
        (lambda: open_grid("inline", REF, 0, {}), "num_clients = 0"),
        (lambda: open_grid("inline", "no.such.module:app", 1, {}), "client_app = 'no.such.module:app'"),
        (lambda: open_grid("inline", "tests.fedsim.grid_app", 1, {}), "package"),
        (lambda: open_grid("inline", "tests.fedsim.grid_app:REF", 1, {}), "is a str, must be a"),
        (lambda: grid_of("inline").send_and_receive(asks(None, nodes=[5])), "dst_node_id = 5: no such node"),
        (lambda: map_tasks("rya", str, []), "engine = 'rya'"),
    ],
)
def test_misuse_is_one_clear_line(open_it, said):
    grid_of("inline")  # a Message can only be made once there is a grid
    with pytest.raises(GridError, match=r"^[^\n]+$") as raised:
        open_it()
    assert said.replace("package", "write 'package.module:name'") in str(raised.value)


values = st.one_of(st.integers(-(2**40), 2**40), st.floats(allow_nan=False), st.lists(st.integers(0, 9)))


@given(
    numbers=st.dictionaries(st.text(max_size=5), values, max_size=4),
    shapes=st.dictionaries(st.text(max_size=5), st.lists(st.integers(0, 3), max_size=3), max_size=3),
)
def test_a_copy_is_equal_and_shares_no_mutable_part(numbers, shapes):
    records = RecordDict(
        {
            "numbers": MetricRecord(numbers),
            "config": ConfigRecord({"text": "x", "bytes": b"y", **numbers}),
            "arrays": ArrayRecord({name: Array(torch.ones(shape).numpy()) for name, shape in shapes.items()}),
        }
    )
    copied = copy_records(records)
    assert copied == records
    assert pickle.loads(pickle.dumps(copied)) == records
    for name, record in records.items():
        assert copied[name] is not record
        for key, value in record.items():
            assert copied[name][key] is not value or not isinstance(value, list | Array)


def test_a_copied_message_keeps_its_metadata():
    grid = grid_of("inline")
    (message, *_) = asks(grid)
    copied = copy_message(message)
    assert vars(copied.metadata) == vars(message.metadata)
    copied.metadata.dst_node_id = 9
    assert message.metadata.dst_node_id == 1


def test_one_thread_gives_the_threads_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def product(seed):
    data = torch.randn(300, 300, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.svd(data @ data.T).S, torch.get_num_threads()


def test_versions_that_differ_are_named_with_both():
    from fedsim.grids.versions import differences, versions

    here = versions()
    assert differences(here) == []
    assert differences({**here, "python": "3.1"}) == [f"python 3.1 (here {here['python']})"]
    assert "ray none" in ", ".join(differences({"python": here["python"]}))


def test_every_package_that_figures_depend_on_is_compared():
    from fedsim.grids.versions import versions

    compared = versions()
    assert {"fedsim-leakage", "dp-accounting", "flwr-datasets", "safetensors"} <= compared.keys()
    assert "none" not in compared.values()


def test_no_cache_and_nothing_built_is_sent_to_other_machines():
    from ray._private.thirdparty.pathspec import PathSpec  # what Ray goes by

    from fedsim.grids.cluster import NOT_SENT

    left_out = PathSpec.from_lines("gitwildmatch", NOT_SENT).match_file
    assert all(map(left_out, [".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache/v", "build/x", "site"]))
    assert not any(map(left_out, [".", "fedsim/run.py", "docs/build.py", "scenarios/quickstart.py", "tests/site"]))


@engines
def test_map_tasks_keeps_the_order_and_reports_as_it_goes(engine):
    told = {}
    results = map_tasks(engine, lambda x: x * x, range(7), on_done=told.__setitem__)
    assert results == [0, 1, 4, 9, 16, 25, 36]
    assert told == dict(enumerate(results))
    assert map_tasks(engine, str, []) == []


@engines
def test_map_tasks_raises_what_a_task_raises(engine):
    with pytest.raises(ZeroDivisionError):
        map_tasks(engine, lambda x: 1 / x, [1, 0, 2])
    assert map_tasks(engine, abs, [-1]) == [1]


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
class TestRay:
    def test_same_replies_and_states_as_inline_bit_for_bit(self):
        inline, ray = grid_of("inline", 9), grid_of("ray", 9)
        for orders in ({}, {"fail": 4}, {}):
            expected = inline.send_and_receive(asks(inline, **orders))
            assert plain(ray.send_and_receive(asks(ray, **orders))) == plain(expected)
        assert ray.states == inline.states

    def test_same_numbers_from_tasks_bit_for_bit(self):
        for (a, m), (b, n) in zip(map_tasks("inline", product, [1, 2]), map_tasks("ray", product, [1, 2]), strict=True):
            assert torch.equal(a, b)
            assert m == n == 1

    def test_workers_stay_warm_from_one_grid_to_the_next(self):
        grid = grid_of("ray")
        workers = {r.content["facts"]["process"] for r in grid.send_and_receive(asks(grid))}
        another = grid_of("ray", 3)
        again = {r.content["facts"]["process"] for r in another.send_and_receive(asks(another))}
        assert os.getpid() not in workers | again
        assert workers & again

    def test_a_client_whose_worker_is_killed_is_tried_once_more(self, tmp_path):
        grid = grid_of("ray")
        orders = {"die once": 2, "mark": str(tmp_path / "mark")}
        replies = grid.send_and_receive(asks(grid, **orders))
        assert [r.has_content() for r in replies] == [True] * 4
        assert grid.states[1]["rounds"]["count"] == 1

    def test_a_client_that_kills_every_worker_is_an_error_and_takes_nobody_along(self):
        grid = grid_of("ray", 12)
        replies = grid.send_and_receive(asks(grid, die=3))
        assert [r.metadata.src_node_id for r in replies if r.has_error()] == [3]
        assert replies[2].error.reason.startswith("the Ray worker of this client died twice: ")
        assert "\n" not in replies[2].error.reason
        assert all(r.has_content() for r in grid.send_and_receive(asks(grid)))

    def test_a_task_that_kills_every_worker_is_named(self):
        with pytest.raises(GridError, match="task 1 was lost with its Ray worker twice"):
            map_tasks("ray", lambda x: os._exit(1) if x else x, [0, 1])

    def test_a_worker_has_its_next_task_before_the_caller_is_done_with_the_last(self, tmp_path):
        from fedsim.grids.pool import Size
        from fedsim.grids.ray import stream_on_ray

        def leave_a_file(number):
            (tmp_path / f"{os.getpid()}-{number}").touch()
            return os.getpid()

        results = stream_on_ray(leave_a_file, range(8), address=None, namespace=None, size=Size())
        _, worker = next(results)
        waits = (time.sleep(0.05) for _ in range(400))
        assert any(len(list(tmp_path.glob(f"{worker}-*"))) > 1 for _ in waits), "the worker waits for the caller"
        assert len(list(results)) == 7

    def test_a_client_out_of_time_is_left_out_and_the_next_round_works(self):
        grid = grid_of("ray")
        grid.send_and_receive(asks(grid))
        replies = grid.send_and_receive(asks(grid, sleep=2), timeout=5)
        assert 2 not in [r.metadata.src_node_id for r in replies]
        assert len(grid.send_and_receive(asks(grid))) == 4

    def test_an_app_that_no_module_holds_is_sent_along(self):
        offset = 5
        from flwr.clientapp import ClientApp

        local = ClientApp()

        @local.query()
        def query(message, context):
            return Message(RecordDict({"n": MetricRecord({"n": context.node_id + offset})}), reply_to=message)

        grid = open_grid("ray", local, 3, {})
        replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])
        assert [r.content["n"]["n"] for r in replies] == [6, 7, 8]

    @pytest.mark.slow
    def test_a_machine_with_another_version_is_refused_by_name(self, monkeypatch):
        from fedsim.grids import versions
        from fedsim.grids.pool import worker_pool

        here = versions.versions()
        monkeypatch.setattr(versions, "versions", lambda: {**here, "numpy": "1.0"})
        worker_pool().dismiss()
        with pytest.raises(GridError, match=rf"would not give the same.*numpy {here['numpy']} \(here 1\.0\)"):
            map_tasks("ray", abs, [1])

    def test_another_address_in_the_same_process_is_refused(self):
        grid_of("ray")
        with pytest.raises(GridError, match="use one address in a process"):
            open_grid("ray", REF, 1, {}, address="127.0.0.1:6379")

    def test_more_cpus_than_any_machine_has_are_refused(self):
        with pytest.raises(GridError, match="4096 CPUs: no machine has so many"):
            open_grid("ray", REF, 1, {}, cpus_per_client=4096)


class TestAddress:
    def test_nobody_there(self):
        from fedsim.grids import cluster

        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            with pytest.raises(GridError, match=r"^address = '127.0.0.1:\d+': no Ray cluster answers there"):
                cluster.connect(f"127.0.0.1:{closed.getsockname()[1]}")

    def test_somebody_there_who_says_nothing(self, monkeypatch):
        from fedsim.grids import cluster

        monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.2)
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            with pytest.raises(GridError, match="no Ray cluster answers there"):
                cluster.connect(f"127.0.0.1:{mute.getsockname()[1]}")

    def test_ray_client_is_refused(self):
        from fedsim.grids import cluster

        with pytest.raises(GridError, match="Ray Client is not supported"):
            cluster.connect("ray://127.0.0.1:10001")


JOIN = """
from flwr.app import *
from fedsim.grids import open_grid
import ray, sys
grid = open_grid("ray", "tests.fedsim.grid_app:app", 3, {"answer": 1}, address=sys.argv[1])
arrays = ArrayRecord([])
asked = [Message(RecordDict({"arrays": arrays, "config": ConfigRecord({})}), n, "train") for n in grid.get_node_ids()]
assert [r.content["facts"]["partition"] for r in grid.send_and_receive(asked)] == [0, 1, 2]
print("joined", ray.get_runtime_context().gcs_address)
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_running_cluster_is_joined_and_left_running():
    from ray.cluster_utils import Cluster

    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", JOIN, running.address], cwd=ROOT, capture_output=True, text=True, timeout=200
            )
            assert f"joined {running.address}" in done.stdout, done.stderr
    finally:
        running.shutdown()


@engines
def test_workers_find_what_the_caller_finds(engine, tmp_path, monkeypatch):
    (tmp_path / "lies_beside.py").write_text("def double(x):\n    return 2 * x\n")
    map_tasks(engine, abs, [1])  # workers that were started before the folder was known
    monkeypatch.syspath_prepend(str(tmp_path))
    from lies_beside import double

    assert map_tasks(engine, double, [1, 2, 3]) == [2, 4, 6]


def test_an_address_without_a_cluster_to_join_is_refused():
    with pytest.raises(GridError, match="address = '10.0.0.1:6379'.*'inline'.*'ray'"):
        open_grid("inline", REF, 1, {}, address="10.0.0.1:6379")
    with pytest.raises(GridError, match="address"):
        map_tasks("inline", abs, [1], address="10.0.0.1:6379")
