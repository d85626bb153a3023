"""What does the server of your own Flower app see, and what can be rebuilt from it?

The upper part is an app of the shape of Flower's PyTorch quickstart; put yours in its place. Nothing in it knows that
it is recorded. The lower part runs it, takes the server's view, and attacks every update in it.
"""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits
from torch import Tensor, nn

from attacks import Knowledge, reconstruct
from attacks.metrics import match, psnr
from attacks.prior import mean_example
from fedsim.bring import record_app

# ---------------------------------------------------------------- the app


class Net(nn.Module):
    """Two fully connected layers on 8x8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


def load_data(partition_id: int, size: int) -> tuple[Tensor, Tensor]:
    """The ``size`` images (size, 1, 8, 8) in [0, 1] of one client, and their labels."""
    digits = load_digits()
    held = slice(partition_id * size, (partition_id + 1) * size)
    return torch.tensor(digits.images[held, None] / 16.0).float(), torch.tensor(digits.target[held])


client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received model on local data and return its weights."""
    model = Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    images, labels = load_data(int(context.node_config["partition-id"]), int(context.run_config["images-per-client"]))
    optimizer = torch.optim.SGD(model.parameters(), lr=float(message.content["config"]["lr"]))
    for _ in range(int(context.run_config["local-epochs"])):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    content = {
        "arrays": ArrayRecord(model.state_dict()),
        "metrics": MetricRecord({"train_loss": loss.item(), "num-examples": len(labels)}),
    }
    return Message(RecordDict(content), reply_to=message)


server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Federated averaging."""
    strategy = FedAvg(fraction_evaluate=0.0)
    strategy.start(
        grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        train_config=ConfigRecord({"lr": context.run_config["lr"]}),
        num_rounds=int(context.run_config["num-server-rounds"]),
    )


# ---------------------------------------------------------------- the attack

RUN_CONFIG = {"num-server-rounds": 2, "local-epochs": 1, "lr": 0.1, "images-per-client": 4}
CLIENTS = 5


def attack() -> None:
    """Rebuild each client's images from what it sent in each round, and print how near they come."""
    recorder = record_app(server_app, client_app, num_clients=CLIENTS, run_config=RUN_CONFIG)
    view = recorder.view(Net())
    size = RUN_CONFIG["images-per-client"]
    public, _ = load_data(10, 100)  # images that no client holds: what one may know of digits without any update
    knowledge = Knowledge(input_shape=(1, 8, 8), num_classes=10, batch_size=size, value_range=(0.0, 1.0), public=public)
    guess = mean_example(public)
    print(f"{len(view.messages)} messages, {len(view.updates)} updates; beside each: {sorted(view.updates[0].side)}")
    print("round client  PSNR in dB of each image (of the mean image); - where the attack claims none")
    for observation in view.observations():
        claim = reconstruct("analytic", observation, knowledge, seed=0)
        truth, _ = load_data(observation.client, size)
        assigned = match(claim.inputs, truth)
        figures = psnr(claim.inputs[assigned], truth, (0.0, 1.0)).where(assigned >= 0, torch.nan)
        baseline = psnr(guess.expand_as(truth), truth, (0.0, 1.0))
        row = "  ".join(f"{f:6.1f} ({b:4.1f})" for f, b in zip(figures.tolist(), baseline.tolist(), strict=True))
        print(f"{observation.round:5} {observation.client:6}  {row.replace('nan', '  -')}")


if __name__ == "__main__":
    attack()
