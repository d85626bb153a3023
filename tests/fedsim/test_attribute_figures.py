"""Figures of attribute inference where the attribute has more than two values: the rarest against all others."""

import torch

from attacks.attribute_figures import g_mean, matthews, ppv_at
from fedsim import Adversary, Attack, Federation, Scenario, Task, run
from fedsim.assets.copies import against_rest, rarest


def test_the_rarest_value_that_any_record_has_stands_against_the_likeliest_other():
    truth = torch.tensor([0, 0, 0, 3, 3, 1])
    assert rarest(truth) == 1
    scores = torch.tensor([[0.5, 0.4, 0.1, 0.0], [0.1, 0.4, 0.2, 0.3], [0.3, 0.3, 0.2, 0.2]])
    assert torch.equal(against_rest(scores, 1), torch.tensor([[0.5, 0.4], [0.3, 0.4], [0.3, 0.3]]))
    perfect = against_rest(torch.eye(4)[truth], 1)
    held = (truth == 1).long()
    assert (matthews(perfect, held), g_mean(perfect, held), ppv_at(perfect, held, 1)) == (1, 1, 1)


def test_an_attribute_of_several_values_has_the_figures_of_two(tmp_path):
    scenario = Scenario(
        name="diagnosis",
        task=Task(dataset="records", model="softmax"),
        federation=Federation(clients=2, rounds=1, batch_size=8),
        adversary=Adversary(knows=["public", "public_labels"]),
        attacks=[Attack(name="attribute_map", targets=60)],
    )
    result = run(scenario, tmp_path / "out")
    (entry,) = result.cells[0]["inferences"]
    figures = {name: figure for name, figure in entry["figures"].items() if name.endswith(", rarest value")}
    assert set(figures) == {"MCC, rarest value", "G-mean, rarest value", "PPV at 10, rarest value"}
    assert all(figure["value"] is not None and figure["guess"] is not None for figure in figures.values())
    assert "against all others" in (result.out / "report.html").read_text()
