"""Every model fits its data, follows its seed, trains, and can be differentiated twice and vectorised."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from attacks.losses import LOSSES
from fedsim.seeds import torch_generator
from fedsim.tasks import MODELS, TaskError, accuracy_and_loss, build_model, load_dataset, split

IMAGE_MODELS = [
    ("lenet", {}),
    ("convnet", {}),
    ("resnet", {"norm": "group"}),
    ("vit", {}),
    ("mlp", {}),
    ("softmax", {}),
]
CASES = [("photos", *m) for m in IMAGE_MODELS] + [
    ("photos", "convnet", {"norm": "group"}),
    ("photos", "convnet", {"norm": "batch"}),
    ("photos", "resnet", {"norm": "none"}),
    ("photos", "resnet", {}),
    ("records", "mlp", {"hidden": [16, 8], "activation": "sigmoid"}),
    ("messages", "transformer", {}),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small models gain nothing from more, and lose much where test workers compete for the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def datasets():
    return {name: load_dataset(name, {}, 0) for name in ("digits", "faces", "photos", "records", "messages", "wine")}


def test_every_registered_model_is_tested():
    assert {name for _, name, _ in CASES} | {"vae"} == set(MODELS)  # which test_generative.py tests


@pytest.mark.parametrize(("data", "name", "options"), CASES)
def test_weights_follow_the_seed_alone(datasets, data, name, options):
    torch.rand(1)
    state = torch.get_rng_state()
    first, again, other = (build_model(name, datasets[data], options, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    assert first.training


@pytest.mark.parametrize(("data", "name", "options"), CASES)
def test_gradients_can_be_matched(datasets, data, name, options):
    """A gradient of a squared gradient norm, vectorised over victims, equals the one-by-one result and is finite."""
    dataset = datasets[data]
    model = build_model(name, dataset, options, 0).double()
    loss = LOSSES[dataset.loss]
    state = {k: v.detach() for k, v in model.named_parameters()}
    # BatchNorm normalises with its running statistics here: its training mode updates buffers in place.
    model.eval()
    text = dataset.modality == "text"
    examples = dataset.inputs[[0, 100, 200]].unsqueeze(1)
    labels = dataset.labels[[0, 100, 200]].unsqueeze(1)
    examples = examples if text else examples.double()

    def objective(weights, x, y):
        gradients = grad(lambda w: loss(functional_call(model, w, (x,)), y))(weights)
        return sum(g.square().sum() for g in gradients.values())

    sensitivity = grad(objective, argnums=0 if text else 1)
    batched = vmap(sensitivity, in_dims=(None, 0, 0))(state, examples, labels)
    single = [sensitivity(state, x, y) for x, y in zip(examples, labels, strict=True)]
    leaves = [(batched, single)] if not text else [(batched[k], [s[k] for s in single]) for k in state]
    for together, apart in leaves:
        assert torch.isfinite(together).all()
        assert torch.allclose(together, torch.stack(apart), rtol=1e-6, atol=1e-9)
    assert max(float(together.abs().max()) for together, _ in leaves) > 0


@pytest.mark.parametrize("data", ["digits", "faces"])
@pytest.mark.parametrize(("name", "options"), IMAGE_MODELS)
def test_image_models_take_other_sizes(datasets, data, name, options):
    dataset = datasets[data]
    assert build_model(name, dataset, options, 0)(dataset.inputs[:3]).shape == (3, dataset.num_classes)


def trained(dataset, name, options, epochs, learning_rate, batch=32):
    """Held-out (accuracy, loss) before and after plain SGD on the pooled data of one client."""
    parts = split(dataset, clients=1, kind="iid", options={}, test_fraction=0.2, public_fraction=0, seed=0)
    model, loss = build_model(name, dataset, options, 0), LOSSES[dataset.loss]
    test = (dataset.inputs[parts.test], dataset.labels[parts.test], dataset.loss)
    before = accuracy_and_loss(model, *test)
    optimiser = torch.optim.SGD(model.parameters(), lr=learning_rate)
    for epoch in range(epochs):
        order = parts.clients[0][torch.randperm(len(parts.clients[0]), generator=torch_generator(0, "epoch", epoch))]
        for index in order.split(batch):
            optimiser.zero_grad()
            loss(model(dataset.inputs[index]), dataset.labels[index]).backward()
            optimiser.step()
    return before, accuracy_and_loss(model, *test)


@pytest.mark.parametrize(
    ("data", "name", "epochs", "learning_rate", "bar"),
    [
        ("digits", "softmax", 10, 0.5, 0.9),
        ("digits", "mlp", 10, 0.3, 0.9),
        ("digits", "convnet", 5, 0.1, 0.9),
        ("digits", "resnet", 3, 0.1, 0.9),
        ("records", "mlp", 10, 0.3, 0.75),
        ("wine", "softmax", 30, 0.5, 0.85),
    ],
)
def test_models_learn(datasets, data, name, epochs, learning_rate, bar):
    before, after = trained(datasets[data], name, {}, epochs, learning_rate)
    assert after[0] >= bar
    assert after[1] < before[1]


def test_the_language_model_learns(datasets):
    before, after = trained(datasets["messages"], "transformer", {}, 2, 0.3)
    assert after[1] < before[1] - 1
    assert after[0] > 0.3


def test_the_language_model_sees_no_later_word(datasets):
    model = build_model("transformer", datasets["messages"], {}, 0).eval()
    tokens = datasets["messages"].inputs[:1]
    changed = tokens.clone()
    changed[0, 8:] = 5
    with torch.no_grad():
        assert torch.allclose(model(tokens)[:, :8], model(changed)[:, :8], atol=1e-6)


def test_lenet_is_the_papers(datasets):
    model = build_model("lenet", datasets["photos"], {}, 0)
    assert sum(p.numel() for p in model.parameters()) == 912 + 2 * 3612 + 768 * 6 + 6
    weights = torch.cat([p.flatten() for p in model.parameters()])
    assert weights.abs().max() <= 0.5
    assert abs(float(weights.detach().std()) - 12**-0.5) < 0.01


def test_accuracy_and_loss_on_a_known_case():
    class Says(nn.Module):
        def forward(self, x):
            return x

    model = Says().train()
    logits = torch.tensor([[0.0, 0.0], [0.0, 9.0]]).repeat(300, 1)
    labels = torch.tensor([0, 0]).repeat(300)
    accuracy, loss = accuracy_and_loss(model, logits, labels, "cross_entropy")
    assert accuracy == pytest.approx(0.5)
    assert loss == pytest.approx((0.693147 + 9.000123) / 2, rel=1e-5)
    assert model.training
    assert all(value != value for value in accuracy_and_loss(model, logits[:0], labels[:0], "cross_entropy"))


def test_next_token_accuracy_counts_the_tokens_that_follow():
    tokens = torch.tensor([[0, 1, 2]])
    outputs = torch.zeros(1, 3, 3)
    outputs[0, 0, 1] = outputs[0, 1, 0] = outputs[0, 2, 2] = 9.0

    class Says(nn.Module):
        def forward(self, x):
            return outputs

    assert accuracy_and_loss(Says(), tokens, tokens, "next_token")[0] == 0.5


class Own(nn.Module):
    def __init__(self, outputs=10, width=64, frozen=False):
        super().__init__()
        self.layer = nn.Linear(width, outputs)
        self.layer.requires_grad_(not frozen)

    def forward(self, x):
        return self.layer(x.flatten(1))


OWN = f"{__name__}:Own"


def not_a_model():
    return 3


def raises():
    raise RuntimeError("no\nluck")


def test_your_own_model_by_dotted_path(datasets):
    first, again = (build_model(OWN, datasets["digits"], {"outputs": 10}, 5) for _ in range(2))
    assert isinstance(first, Own)
    assert torch.equal(first.layer.weight, again.layer.weight)


@pytest.mark.parametrize(
    ("data", "name", "options", "said"),
    [
        ("digits", "mpl", {}, "task.model = 'mpl': unknown name; nearest: mlp"),
        ("digits", "mlp", {"hiden": [3]}, "task.model_options.hiden = [3]: unknown option; nearest: hidden"),
        ("digits", "mlp", {"hidden": 3}, "cannot be built with {'hidden': 3}"),
        ("digits", "mlp", {"activation": "step"}, "task.model_options.activation = 'step'"),
        ("digits", "convnet", {"norm": "layer"}, "task.model_options.norm = 'layer'"),
        ("digits", "vit", {"patch": 3}, "use one of [1, 2, 4, 8]"),
        ("digits", "vit", {"dim": 30}, "task.model_options.heads = 4: does not divide dim = 30"),
        ("records", "lenet", {}, "it takes pictures, records is tabular"),
        ("digits", "transformer", {}, "it takes text, digits is image"),
        ("messages", "mlp", {}, "rejects inputs of shape (2, 16)"),
        ("digits", OWN, {"outputs": 7}, "is (2, 7), the labels of digits need (2, 10)"),
        ("digits", OWN, {"width": 5}, "rejects inputs of shape (2, 1, 8, 8)"),
        ("digits", OWN, {"frozen": True}, "no trainable parameter"),
        ("digits", OWN, {"outptus": 7}, "nearest: outputs"),
        ("digits", f"{__name__}:not_a_model", {}, "makes a int"),
        ("digits", f"{__name__}:raises", {}, "RuntimeError: no luck"),
        ("digits", f"{__name__}:OWN", {}, "neither a class nor a function"),
        ("digits", f"{__name__}:Ovn", {}, f"nearest: {OWN}"),
        ("digits", "no.such.module:Net", {}, "module 'no.such.module' does not import"),
    ],
)
def test_models_that_cannot_be_are_refused_in_one_line(datasets, data, name, options, said):
    with pytest.raises(TaskError) as caught:
        build_model(name, datasets[data], options, 0)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
