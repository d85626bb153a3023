"""Noise that cannot fit in what masking encodes is refused before anything runs, by both fields and with what fits."""

import re

import pytest

from fedsim import ClientDP, Federation, Scenario, SecureAggregation
from fedsim.apps import client_app
from fedsim.cells import preflight
from fedsim.experiment import Experiment
from fedsim.federation import federate, recording
from fedsim.fitting import check_noise_fits
from fedsim.grids import InlineGrid
from fedsim.report.progress import Progress
from fedsim.tasks import TaskError


def scenario(*protocol):
    return Scenario(
        name="x",
        task={"dataset": "digits", "model": "softmax"},
        federation=Federation(clients=5, weighted=False),
        protocol=protocol,
    )


def history(made):
    nodes = {client: client + 1 for client in range(5)}
    grid = InlineGrid(client_app, 5, {"scenario": made.model_dump_json()})
    return federate(recording(grid, made, nodes), Experiment(made), nodes).history


def test_noise_that_nearly_every_update_overflows_with_is_refused_and_what_is_proposed_runs():
    noise = ClientDP(noise_multiplier=0.5)
    made = scenario(noise, SecureAggregation())
    with pytest.raises(TaskError, match=r"protocol\[0\]\.noise_multiplier = 0.5 adds") as refused:
        preflight(made.cells()[0], Progress(quiet=True))
    assert refused.value.field == "protocol[1].clip"
    assert all("outside the clip" in reason for reason in history(made)[1]["failed"].values())
    enough = float(re.search(r"at least ([\d.]+)", refused.value.remedy)[1])
    fits = scenario(noise, SecureAggregation(clip=enough))
    preflight(fits.cells()[0], Progress(quiet=True))
    assert history(fits)[1]["failed"] == {}


@pytest.mark.parametrize(
    "protocol",
    [
        [SecureAggregation()],
        [ClientDP(noise_multiplier=0.5)],
        [ClientDP(noise_multiplier=0.0), SecureAggregation()],
        [ClientDP(noise_multiplier=0.5, level="example"), SecureAggregation()],
        [ClientDP(noise_multiplier=0.5), SecureAggregation(profile="flower_1_41")],
        [ClientDP(clip=5.0, noise_multiplier=0.02), SecureAggregation(clip=2.0)],
    ],
    ids=["no noise", "no masks", "clipped alone", "noise in each step", "Flower cuts", "a norm above the range"],
)
def test_what_may_fit_is_not_refused(protocol):
    check_noise_fits(Experiment(scenario(*protocol)))
