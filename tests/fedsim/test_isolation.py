"""Attacks get the view and the granted knowledge; the truth and the seed are out of their reach."""

import io
import pickle

import torch
from torch import nn

from fedsim import Adversary, Attack, ClientDP, Federation, Scenario
from fedsim.adversary import knowledge_for
from fedsim.apps import client_app
from fedsim.assess import jobs
from fedsim.experiment import Experiment
from fedsim.federation import federate, roll_call
from fedsim.grids import InlineGrid
from fedsim.truth import truth_of
from strategies.client_dp import ClientDP as Defence
from strategies.recorder import RecordingGrid

SEED = 8_675_309


def recorded(**fields):
    fields.setdefault("task", {"dataset": "digits", "model": "mlp"})
    fields.setdefault("federation", Federation(clients=3, batch_size=2))
    scenario = Scenario(name="x", seeds=[SEED], attacks=[Attack(name="analytic", victims=3)], **fields)
    made = Experiment(scenario)
    grid = InlineGrid(client_app, 3, {"scenario": scenario.model_dump_json()})
    recorder = RecordingGrid(grid)
    federate(recorder, made, roll_call(recorder, 3))
    return made, recorder.view(made.initial_model())


def what_attacks_receive(made, view):
    """Every object that a pickle of the attacks' inputs reaches: nothing else crosses to an attack's process."""
    planned = jobs(made, view, made.scenario.attacks)
    tensors, scalars = [], []

    class Walker(pickle.Pickler):
        def persistent_id(self, obj):
            if isinstance(obj, torch.Tensor):
                tensors.append(obj)
                return "tensor"
            return None

    Walker(io.BytesIO()).dump(planned)
    scalars = pickle.dumps(planned)
    return tensors, scalars


def test_no_path_leads_from_an_attacks_inputs_to_the_truth():
    made, view = recorded()
    tensors, _ = what_attacks_receive(made, view)
    assert tensors
    private = torch.cat([truth_of(made, 1, client).inputs for client in range(3)]).flatten(1)
    dataset_memory = made.dataset.inputs.untyped_storage().data_ptr()
    for tensor in tensors:
        assert tensor.untyped_storage().data_ptr() != dataset_memory
        if tensor.is_floating_point() and tensor.numel() % private.shape[1] == 0:
            rows = tensor.detach().reshape(-1, private.shape[1])
            assert not (rows[:, None] == private[None]).all(-1).any()


def test_the_seed_is_in_no_message_and_in_no_attacks_input():
    made, view = recorded()
    _, pickled = what_attacks_receive(made, view)
    spelled = [str(SEED).encode(), SEED.to_bytes(4, "little"), SEED.to_bytes(4, "big")]
    messages = pickle.dumps([(m.configs, m.metrics, m.error) for m in view.messages])
    assert not any(form in blob for form in spelled for blob in (pickled, messages))


def test_labels_are_handed_over_only_where_granted():
    made, _ = recorded(adversary=Adversary(knows=["public"]))
    assert knowledge_for(made, truth_of(made, 1, 0)).granted() == ("public",)
    told, _ = recorded(adversary=Adversary(knows=["labels"]))
    truth = truth_of(told, 1, 0)
    knowledge = knowledge_for(told, truth)
    assert torch.equal(knowledge.labels, truth.labels)
    assert knowledge.labels.untyped_storage().data_ptr() != told.dataset.labels.untyped_storage().data_ptr()


def test_an_update_noised_on_the_client_is_noised_in_the_view():
    clean_made, clean = recorded()
    noised_made, noised = recorded(protocol=[ClientDP(clip=1.0, noise_multiplier=0.05)])
    assert clean_made.seed == noised_made.seed
    for plain, dp in zip(clean.updates, noised.updates, strict=True):
        flat = torch.cat([t.flatten() for t in plain.arrays.values()]).double()
        clipped = flat * min(1.0, 1.0 / float(flat.norm()))
        residual = torch.cat([t.flatten() for t in dp.arrays.values()]).double() - clipped
        assert abs(float(residual.std()) / 0.05 - 1) < 0.05
        assert abs(float(residual.mean())) < 0.005


def test_a_defence_acts_on_bytes_not_on_the_view(monkeypatch):
    """With the noise taken out of the client's code the view is clean again, whatever the scenario says."""
    monkeypatch.setattr(Defence, "protect", lambda self, update, context: dict(update))
    _, undefended = recorded(protocol=[ClientDP(clip=1.0, noise_multiplier=0.05)])
    monkeypatch.undo()
    _, plain = recorded()
    for left, right in zip(undefended.updates, plain.updates, strict=True):
        assert all(torch.equal(left.arrays[name], right.arrays[name]) for name in left.arrays)


def test_what_travels_beside_the_update_is_in_the_view():
    _, view = recorded(task={"dataset": "digits", "model": "convnet", "model_options": {"norm": "batch"}})
    assert all(update.side["num-examples"] == 2 and "train_loss" in update.side for update in view.updates)
    assert all(any("running_mean" in name for name in update.buffers) for update in view.updates)
    trained = next(view.observations(client=0))
    assert any(isinstance(module, nn.BatchNorm2d) for module in trained.model.modules())
