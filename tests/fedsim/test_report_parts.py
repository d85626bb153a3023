"""The report's parts: choosing targets, drawing pictures, saying numbers, the terminal and the progress bar."""

import base64
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from fedsim.report.gallery import chosen, place
from fedsim.report.progress import Progress
from fedsim.report.reading import Hit, Results, Target
from fedsim.report.style import CSS
from fedsim.report.terminal import print_summary
from fedsim.report.tiles import Pictures, png
from fedsim.report.wording import at_most, epsilon, interval, number, plain, size
from tests.fedsim.report_fixture import made_up_run


def test_columns_are_taken_by_mean_rank_at_equal_steps():
    def row(*figures):
        return {Target(0, i, 0): Hit(None, {"psnr": f}, {}) for i, f in enumerate(figures)}

    rows = [row(50, 10, 30, 20, 40), row(9.0, 1.0, 4.0, 3.0, 8.0)]
    assert [t.client for t in chosen(rows, "psnr", 3)] == [0, 2, 1]
    assert [t.client for t in chosen(rows, "psnr", 9)] == [0, 4, 2, 3, 1]
    assert [t.client for t in chosen([row(None, 5.0)], "psnr")] == [1, 0]
    assert [place(i, 5) for i in range(5)] == ["most leaked", "", "median", "", "least leaked"]
    assert place(0, 1) == "the only target"


def test_pictures_are_drawn_as_they_are_or_counted():
    exact = np.linspace(0, 1, 12).reshape(3, 2, 2)
    pictures = Pictures({"good": exact, "out": exact * 3 - 1, "nan": np.full((4, 4), np.nan)})
    uri = pictures.uri("good")
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
    assert np.array_equal(decoded, np.rint(np.moveaxis(exact, 0, -1) * 255))
    assert (pictures.shown, pictures.clipped, pictures.broken) == (1, 0, 0)
    pictures.uri("out")
    pictures.uri("nan")
    assert (pictures.shown, pictures.clipped, pictures.broken) == (3, 1, 1)
    assert pictures.uri("absent") is None
    with pytest.raises(ValueError, match=r"shape \(5, 4, 4\)"):
        png(np.zeros((5, 4, 4)))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (number(0.000012345), "1.23 × 10⁻⁵"),
        (number(1e-5), "10⁻⁵"),
        (number(38440), "38,440"),
        (number(523120.4), "523,000"),
        (number(math.nan), "–"),
        (number(-math.inf), "−∞"),
        (number("x"), "–"),
        (at_most(4.3721), "4.38"),
        (at_most(4.37), "4.37"),
        (at_most(None), "∞"),
        (epsilon(None), "no guarantee"),
        (epsilon({"epsilon": None}), "∞"),
        (size(1_580_000), "1.58 MB"),
        (size(12), "12 B"),
        (interval("psnr", {"median": 42.04, "low": 40, "high": None}), "42.0"),
        (interval("psnr", {"median": 42.04, "low": 40, "high": 44.96}), "42.0 [40.0, 45.0]"),
        (plain({"a": [1, 2.5], "b": None}), "a 1, 2.5, b –"),
    ],
)
def test_numbers_are_said_plainly(said, meant):
    assert said == meant


def test_noise_is_read_from_the_statement_or_from_the_scenario():
    results = made_up_run()[0]
    setting = (("task", "digits"),)
    assert Results(results).noise_of("none", setting) is None
    assert Results(results).noise_of("DP z=0.01", setting) == 1e-2
    for cell in results["cells"]:
        cell["privacy"] = None
    assert Results(results).noise_of("DP z=0.01", setting) == 1e-2


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1])
def test_text_is_legible_in_light_and_dark(theme):
    colours = dict(re.findall(r"--(\w+):(#\w{6})", re.findall(r":root\{(--ink.*?)\}", CSS, re.S)[theme]))
    for name in ("ink", "quiet", "link", "bad", "good", "warn"):
        for ground in ("paper", "wash"):
            dark, light = sorted((luminance(colours[name]), luminance(colours[ground])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground)


def test_the_terminal_ends_with_the_path_and_takes_no_markup():
    stream = io.StringIO()
    results = made_up_run()[0]
    results["cells"][0]["attacks"][0]["name"] = "[red]analytic"
    print_summary(results, Console(file=stream, width=80), Path("runs/quickstart/report.html"))
    lines = stream.getvalue().splitlines()
    assert lines[-1] == "report: runs/quickstart/report.html"
    assert "[red]analytic" in stream.getvalue()
    assert max(map(len, lines)) <= 80
    assert any("42.7 (11.9)" in line and "503,000" in line and "38.4 kB" in line for line in lines)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def follow(stream, quiet=False):
    with Progress(quiet=quiet, stream=stream) as progress:
        progress.stage("training [x]", 40)
        for i in range(40):
            progress.advance(1, f"round {i}")
    return stream.getvalue()


def test_progress_is_lines_in_a_log_a_bar_on_a_terminal_and_nothing_when_quiet(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    lines = follow(io.StringIO()).splitlines()
    assert lines[0] == "training [x]: 40 to do"
    assert len(lines) == 11
    assert lines[-1] == "training [x]: 40/40 round 39"
    assert "\x1b[" in follow(Terminal())
    assert follow(io.StringIO(), quiet=True) == ""
    assert follow(Terminal(), quiet=True) == ""
