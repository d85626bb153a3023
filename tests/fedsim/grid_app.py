"""A ClientApp that does as the message's config says, for the tests of the engines."""

import os
import sys
import time
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
REF = "tests.fedsim.grid_app:app"


@app.train()
def train(message: Message, context: Context) -> Message:
    orders = message.content["config"]
    count = context.state["rounds"]["count"] + 1 if "rounds" in context.state else 1
    context.state["rounds"] = MetricRecord({"count": count})
    if orders.get("fail") == context.node_id:
        raise ValueError("the batch\nis empty")
    if orders.get("exit") == context.node_id:
        sys.exit("leaving")
    if orders.get("die") == context.node_id:
        os._exit(3)
    if orders.get("die once") == context.node_id:
        mark = Path(orders["mark"])
        if not mark.exists():
            mark.touch()
            os._exit(3)
    if orders.get("sleep") == context.node_id:
        time.sleep(120)
    generator = torch.Generator().manual_seed(context.node_id)
    arrays = message.content["arrays"].to_torch_state_dict()
    data = torch.randn(200, 50, generator=generator)
    moved = {name: tensor + (data.T @ data).sum() * 1e-3 for name, tensor in arrays.items()}
    facts = ConfigRecord(
        {
            "partition": context.node_config["partition-id"],
            "partitions": context.node_config["num-partitions"],
            "answer": context.run_config["answer"],
            "threads": torch.get_num_threads(),
            "process": os.getpid(),
        }
    )
    content = {"arrays": ArrayRecord(moved), "metrics": MetricRecord({"count": count}), "facts": facts}
    return Message(RecordDict(content), reply_to=message)


@app.query("vandal")
def vandal(message: Message, context: Context) -> Message:
    """Spoil everything within reach, and say what was found."""
    found = message.content["config"]["list"][0]
    message.content["config"]["list"].append(-1)
    message.content["config"]["list"][0] = -1
    message.content["arrays"]["weight"].data = b""
    message.content["arrays"].clear()
    context.run_config["answer"] = -1
    context.node_config["partition-id"] = -1
    return Message(RecordDict({"found": ConfigRecord({"list0": found, "arrays": 0})}), reply_to=message)


@app.query("nonsense")
def nonsense(message: Message, context: Context) -> Message:
    return "no message"  # type: ignore[return-value]


@app.query("stranger")
def stranger(message: Message, context: Context) -> Message:
    return message
