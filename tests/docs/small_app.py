"""The Flower app that a reader of the tutorial brings: four digits a client, two dense layers, FedAvg."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fedsim.tasks import load_dataset


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


client_app = ClientApp()
server_app = ServerApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    model = Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    digits = load_dataset("digits", {}, 0)
    first = 4 * int(context.node_config["partition-id"])
    loss = nn.functional.cross_entropy(model(digits.inputs[first : first + 4]), digits.labels[first : first + 4])
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= float(context.run_config["lr"]) * parameter.grad
    records = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": 4})}
    return Message(RecordDict(records), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    FedAvg(fraction_evaluate=0.0).start(
        grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        num_rounds=int(context.run_config["num-server-rounds"]),
    )
