"""What attacks reached, drawn under what none can exceed: the curves are the closed forms, and a break is told."""

import pytest
from scipy.stats import binomtest, norm

from fedsim import Adversary, ClientDP, Federation, Scenario, Task, run
from fedsim.report import write_report
from fedsim.report.bounded import bounded_blocks, members, rebuilt
from fedsim.report.reading import Results
from fedsim.report.sections import Context
from fedsim.report.tiles import Pictures
from tests.fedsim.report_fixture import made_up_run

DIGITS = (("task", "digits"),)


def made_up(noise=None, releases=4):
    """The made-up run; ``noise`` takes the place of every noise multiplier that was stated."""
    results, pictures = made_up_run()
    for cell in results["cells"]:
        if cell["privacy"]:
            cell["privacy"] |= {"releases": releases, **({"noise_multiplier": noise} if noise else {})}
    return results, pictures


def test_the_bound_is_that_of_a_gaussian_at_the_upper_end_of_guessing():
    found = {reached.protocol: reached for reached in rebuilt(Results(made_up(0.8)[0]), DIGITS)}
    least = found["DP z=0.1"]
    prior = binomtest(0, 8).proportion_ci(0.95, method="exact").high
    assert least.guess == (0.0, 0.0, prior)
    assert least.most == pytest.approx(norm.cdf(norm.ppf(prior) + 2 / 0.8))
    assert least.rate[1] == 0
    assert not least.exceeds
    assert found["none"].most is None
    assert found["none"].rate[1] == 1


def test_points_under_curves_are_drawn_and_told_in_words(tmp_path):
    results, pictures = made_up()
    page = write_report(results, pictures, tmp_path).read_text()
    drawn = (tmp_path / "figures" / "bounds-1.svg").read_text()
    assert "targets that guessing comes near" in drawn
    assert "Measured success of attacks as points" in page
    assert "3 points under noise, none lies above its bound" in page
    for stand_in in ("#1c2126", "#fefefe", "#5b6570", "#d8dde2"):
        assert stand_in not in page.split('aria-label="Measured success')[1].split("</svg>")[0]


def test_a_point_above_its_curve_is_called_what_it_is():
    blocks = bounded_blocks(Context(Results(made_up(50.0)[0]), Pictures({})))
    drawing, table = blocks[1], blocks[2]
    assert "above its bound: analytic under DP z=0.001" in drawing.alt
    assert "above its bound" in str(table.__html__())


def test_without_noise_nothing_bounds_and_nothing_is_drawn():
    results, pictures = made_up_run({"none": []})
    assert bounded_blocks(Context(Results(results), Pictures(pictures))) == []


def test_members_stand_under_the_bound_that_their_scoring_states(tmp_path):
    private = Scenario(
        name="bounded",
        task=Task(dataset="digits", model="softmax", test_fraction=0.6),
        federation=Federation(algorithm="fedavg", clients=3, rounds=2, batch_size=10, examples_per_client=40),
        adversary=Adversary(),
        protocol=[ClientDP(clip=1.0, noise_multiplier=4.0)],
        attacks=["loss_membership"],
    )
    results = run(private, tmp_path / "run").results
    (row,) = results["inference_summary"]
    stated = {fpr: row["figures"][f"tpr at {fpr:g}"]["bound"] for fpr in (0.1, 0.01)}
    found = members(Results(results), ())
    assert [reached.guess[1] for reached in found] == [0.1, 0.01]
    for reached in found:
        assert reached.most == pytest.approx(stated[reached.guess[1]])
        assert reached.most == pytest.approx(norm.cdf(norm.ppf(reached.guess[1]) + 2 * 2**0.5 / 4))
