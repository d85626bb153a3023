"""One homomorphic federation on digits, kept whole, for the tests."""

import pickle

from torch import nn

from fedsim import Adversary, Attack, Federation, Scenario, vantage
from fedsim.apps import client_app
from fedsim.encryption import deploy
from fedsim.experiment import Experiment
from fedsim.federation import federate, recording
from fedsim.grids import open_grid

HOLDERS = ("clients_share_key", "trusted_decryptor", "server_holds_key")


def experiment(*protocol, attacks=None, adversary=None, model="softmax", partition=None, **federation):
    fields = {"clients": 4, "batch_size": 3, "rounds": 2, "weighted": False, "learning_rate": 0.5, **federation}
    return Experiment(
        Scenario(
            name="x",
            task={"dataset": "digits", "model": model, "partition": partition or {}},
            federation=Federation(**fields),
            protocol=protocol,
            adversary=adversary or Adversary(),
            attacks=attacks or (Attack(name="analytic", victims=2),),
        )
    )


class Run:
    """One federation, kept whole: its training, the server's view, the adversary's, and everything in between."""

    def __init__(self, made, wrap=lambda grid: grid, engine="inline"):
        clients = made.scenario.federation.clients
        nodes = {client: client + 1 for client in range(clients)}
        app = client_app if engine == "inline" else "fedsim.apps:client_app"
        self.grid = open_grid(engine, app, clients, {"scenario": made.scenario.model_dump_json()})
        self.deployment = deploy(self.grid, made, nodes)
        self.recorder = recording(wrap(self.grid), made.scenario, nodes)
        self.training = federate(self.recorder, made, nodes, deployment=self.deployment)
        self.seen = self.recorder.view(made.initial_model(), self.training.opened)
        self.view = vantage.adversary_view(vantage.Run(made, self.recorder, self.training, self.deployment))

    @property
    def state(self):
        return self.training.state


def everything(view):
    """Every byte of a view."""
    return pickle.dumps((view.messages, view.updates, view.broadcasts))


def apart(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def normalised():
    """A model with BatchNorm, for digits."""
    layers = (nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    return nn.Sequential(*layers)
