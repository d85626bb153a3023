"""The report: self-contained, deterministic, honest about what is missing, and safe with any text."""

import copy
import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from fedsim.report import write_report
from fedsim.report.reading import Results
from fedsim.report.terminal import print_summary
from fedsim.report.tiles import png
from tests.fedsim.report_fixture import PROTOCOLS, made_up_run

HOSTILE = "<script>alert('x')</script> \"&' ]]> --> $\\alpha_1$ {{ 7*7 }} [red]"
DIVIDER = "What follows belongs to this one run"


class Page(HTMLParser):
    """Every start tag with its attributes, and all text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def named(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def written(results, pictures, out):
    return write_report(results, pictures, out).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run():
    return made_up_run()


@pytest.fixture(scope="module")
def html(run, tmp_path_factory):
    return written(*run, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def record_run(modality):
    """A run on records or texts: one client, two protocols, three targets."""
    results, _ = made_up_run({"none": [], "DP z=0.1": PROTOCOLS["DP z=0.1"]})
    if modality == "tabular":
        columns, truth = ["age", "smoker"], [["41", "yes"], ["29", "no"], ["77", "yes"]]
        claims = {"none": truth, "DP z=0.1": [["40", "yes"], ["30", "yes"], ["12", "no"]]}
    else:
        columns, truth = ["text"], [["the code is 1234"], ["hello dear nurse"], ["see you at nine"]]
        claims = {"none": truth, "DP z=0.1": [["a a a a"], ["b b b"], ["c c c c"]]}
    for cell in results["cells"]:
        cell["attacks"] = cell["attacks"][:1]
        for attack in cell["attacks"]:
            claim = claims[cell["labels"]["protocol"]]
            figures = [float(np.mean(np.array(t) == np.array(c))) for t, c in zip(truth, claim, strict=True)]
            victim = {
                "client": 0, "figures": {"columns": figures}, "labels_right": None, "pictures": [],
                "baseline": {}, "rows": {"columns": columns, "truth": truth, "claim": claim},
            }  # fmt: skip
            attack["victims"] = [victim]
    for entry in results["summary"]:
        entry.update(metric="columns", unit="share", fractions={})
        entry.update(median=1.0, low=1.0, high=1.0, worst=1.0, baseline=0.4)
    return results


def test_needs_nothing_from_outside(html, page):
    assert page.named("script") == [{}]
    assert not page.named("link")
    assert not re.search(r"fetch\(|XMLHttp|import\(|WebSocket|sendBeacon|innerHTML", html)
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:image/png;base64,")), (tag, target)
        assert not any(name.startswith("on") for name in attributes)
    assert set(re.findall(r"url\((.)", html)) <= {"#"}


def test_every_image_says_what_it_shows(page):
    images = page.named("img")
    assert len(images) > 20
    assert all(len(image["alt"]) > 10 for image in images)
    for drawing in page.named("svg"):
        assert drawing.get("aria-hidden") == "true" or (drawing["role"] == "img" and len(drawing["aria-label"]) > 30)


def test_ids_are_unique_and_links_lead_somewhere(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for _, a in page.tags if a.get("href", "").startswith("#")]
    targets += [a["xlink:href"][1:] for _, a in page.tags if a.get("xlink:href", "").startswith("#")]
    assert set(targets) <= set(ids)


def test_what_scrolls_can_be_reached_by_keyboard(page):
    boxes = [a for tag, a in page.tags if "scroll" in a.get("class", "").split() or tag == "pre"]
    assert boxes
    assert all(box["tabindex"] == "0" and box["role"] == "region" and box["aria-label"] for box in boxes)


def test_same_results_same_bytes(run, tmp_path):
    results, pictures = run
    again = json.loads(json.dumps(results, sort_keys=True))
    first, second = (written(content, pictures, tmp_path / name) for content, name in ((results, "a"), (again, "b")))
    assert first == second
    assert list(Results(again).stacks) == results["axes"]["protocol"] != sorted(results["axes"]["protocol"])
    drawn = sorted((tmp_path / "a" / "figures").iterdir())
    names = [f"{kind}-{i}.svg" for kind in ("accuracy", "flow", "leakage", "pareto") for i in (1, 2)]
    assert [path.name for path in drawn] == names
    assert all(path.read_bytes() == (tmp_path / "b" / "figures" / path.name).read_bytes() for path in drawn)


def test_time_and_place_change_only_the_last_sections(run, html, tmp_path):
    results, pictures = copy.deepcopy(run[0]), run[1]
    results["timings"] = {"total_seconds": 9.9}
    results["environment"] = {"date": "2031-01-01"}
    for measured in results["evidence"].values():
        measured["wire"] = {"masked_byte_p_value": 0.42}
    other = written(results, pictures, tmp_path)
    assert other != html
    assert other.split(DIVIDER)[0] == html.split(DIVIDER)[0]
    assert "2026-11-23" in html.split(DIVIDER)[1]
    assert "2026-11-23" not in html.split(DIVIDER)[0]


def test_a_plot_of_the_run_before_does_not_stay(run, tmp_path):
    written(*run, tmp_path)
    written({}, {}, tmp_path)
    assert not list((tmp_path / "figures").iterdir())


def test_verdicts_stand_first_and_never_promise_too_much(page):
    text = page.text
    assert [a["id"] for a in page.named("section")][:3] == ["verdict", "scope", "assets"]
    assert "Of 8 combinations of protocol and setting: 4 broken and 4 not broken." in text
    assert "broken at rung L7 by analytic" in text
    assert not re.search(r"\b(is|are|stays?|remains?|fully|completely) (private|safe|secure)\b", text, re.I)
    assert "A failure to attack is not privacy." in text


def test_whatever_gave_no_answer_says_why(page):
    text = page.text
    assert "not applicable: needs labels (rung L6)" in text
    assert "diverged: all 4 restarts ended with a loss that is not finite" in text
    assert "inconclusive: lost its sanity case" in text
    assert "1 of 2 seeds failed" in text
    assert "client 2 returned an update that is not finite in round 3" in text
    assert "LPIPS" in text


def test_a_protocol_that_was_only_guessed_at_is_undecided(run, tmp_path):
    results = copy.deepcopy(run[0])
    for entry in results["summary"]:
        entry.update(rung="L0", verdict="what guessing gives, without any update")
    assert "Of 8 combinations of protocol and setting: 8 undecided." in Page(written(results, run[1], tmp_path)).text


def test_all_rows_show_the_same_targets(run, page):
    pictures = run[1]
    alts = [image["alt"] for image in page.named("img")]
    columns = [alt.removeprefix("Truth: ") for alt in alts if alt.startswith("Truth: ")]
    none = [re.sub(r".*under none: |, PSNR.*", "", alt) for alt in alts if "under none" in alt]
    assert none == columns
    assert {image["src"] for image in page.named("img") if "Truth" in image["alt"]} <= {
        png(value) for key, value in pictures.items() if key.endswith("truth")
    }
    assert sum("mean public image" in alt for alt in alts) == len(columns)


def test_another_truth_never_stands_under_a_target(run, tmp_path):
    results, pictures = run[0], dict(run[1])
    for cell in results["cells"]:
        if cell["labels"]["protocol"] == "DP z=0.01":
            pictures |= {k: 1 - v for k, v in pictures.items() if k.startswith(cell["digest"]) and k.endswith("/truth")}
    alts = [a.get("aria-label", "") for a in Page(written(results, pictures, tmp_path)).named("span")]
    assert any(alt.startswith("Another target under DP z=0.01") for alt in alts)


def test_without_the_truth_no_private_picture_is_shown_and_it_says_so(tmp_path):
    results, pictures = made_up_run(truth=False)
    page = Page(written(results, pictures, tmp_path))
    assert not [image for image in page.named("img") if image["alt"].startswith("Truth")]
    assert [image for image in page.named("img") if image["alt"].startswith("Rebuilt under none")]
    assert "The truth was not stored with this run" in page.text


@pytest.mark.parametrize("modality", ["tabular", "text"])
def test_records_and_texts_stand_beside_their_claims(modality, tmp_path):
    page = Page(written(record_run(modality), {}, tmp_path))
    assert ("41 ✓" if modality == "tabular" else "the code is 1234 ✓") in page.text
    assert ("12" if modality == "tabular" else "a a a a") in page.text
    results = record_run(modality)
    for victim in (v for c in results["cells"] for a in c["attacks"] for v in a["victims"]):
        del victim["rows"]["truth"]
    text = Page(written(results, {}, tmp_path)).text
    assert "✓" not in text.replace("✓ marks", "")
    assert "The truth was not stored" in text


def test_hostile_names_are_only_text(tmp_path):
    results, pictures = made_up_run({HOSTILE: [], "DP z=0.1": PROTOCOLS["DP z=0.1"]})
    results["scenario"]["name"] = HOSTILE
    results["environment"][HOSTILE] = HOSTILE
    for cell in results["cells"]:
        cell["cause"], cell["data"] = HOSTILE, HOSTILE
        for attack in cell["attacks"]:
            attack["name"] = attack["name"] + HOSTILE
            attack["reason"] = HOSTILE
    for entry in results["summary"]:
        entry["attack"] += HOSTILE
        entry["verdict"] = "broken by " + HOSTILE
    html = written(results, pictures, tmp_path)
    page = Page(html)
    assert page.named("script") == [{}]
    assert "alert('x')" in page.text
    assert "{{ 7*7 }}" in page.text
    assert "broken by <script>" in page.text
    for path in (tmp_path / "figures").iterdir():
        ElementTree.fromstring(path.read_bytes())
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


OPTIONAL = {"privacy", "cost", "training", "side_channels", "attacks", "figures", "baseline", "fractions", "reason"}
"""Parts of results.json that a run may lack; figures may be missing or not finite besides."""


def may_break(content, path=()):
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(value, float) or key in OPTIONAL:
            yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from may_break(value, (*path, key))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_missing_and_broken_figures_never_stop_the_report(tmp_path, data):
    results, pictures = made_up_run({"none": [], "DP z=0.1": PROTOCOLS["DP z=0.1"]})
    # From the leaves up, so that a part is gone only after what it holds was broken.
    paths = [path for part in ("cells", "summary") for path in may_break(results[part], (part,))]
    for path in sorted(data.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=30)), key=len, reverse=True):
        place = results
        for key in path[:-1]:
            place = place[key]
        figure = isinstance(place[path[-1]], float)
        place[path[-1]] = data.draw(st.sampled_from([None, math.nan, math.inf, -math.inf])) if figure else None
    html = written(results, pictures, tmp_path)
    print_summary(results, Console(file=io.StringIO()))
    assert not re.search(r"\b(nan|None|inf)\b", Page(re.sub(r"<(style|pre).*?</\1>", "", html, flags=re.S)).text)


@pytest.mark.parametrize("results", [{}, {"cells": [], "summary": []}, {"scenario": {"name": "bare"}, "axes": {}}])
def test_an_empty_run_still_gives_a_page(results, tmp_path):
    assert "Nothing was run." in Page(written(results, {}, tmp_path)).text


def test_a_clipped_picture_is_admitted(page):
    assert re.search(r"Of \d+ pictures, [1-9]\d* held values outside \[0, 1\]", page.text)


def changed(run, protocol, **fields):
    """The run with the summary entries of one protocol changed."""
    results = copy.deepcopy(run[0])
    for entry in results["summary"]:
        if entry["labels"]["protocol"] == protocol:
            entry.update(fields)
    return results


@pytest.mark.parametrize("key", ["median", "recovered"])
def test_an_infinite_figure_is_a_sign_or_left_out(run, tmp_path, key):
    html = written(changed(run, "DP z=0.1", **{key: math.inf}), run[1], tmp_path)
    assert not re.search(r"\binf\b", Page(re.sub(r"<(style|pre).*?</\1>", "", html, flags=re.S)).text)


def chips(html):
    """Protocol and chip of each row of the verdict."""
    rows = re.findall(r"</svg>([^<]*)</span></th><td[^>]*><span class=\"chip (\w+)\">([^<]*)<", html)
    return {(protocol, tone, text) for protocol, tone, text in rows}


def test_a_protocol_whose_labels_were_read_is_not_green(run, tmp_path):
    sentence = "labels read at rung L7 by analytic: 100 % right, guessing 38 % (12 clients)"
    reading = {"what": "labels", "read": True, "n": 12, "verdict": sentence}
    html = written(changed(run, "DP z=0.1", readings=[reading]), run[1], tmp_path)
    assert ("DP z=0.1", "bad", "labels read") in chips(html)
    assert ("DP z=0.01", "good", "not broken") in chips(html)
    assert "4 broken, 2 labels read and 2 not broken" in Page(html).text
    assert sentence in Page(html).text
    few = written(changed(run, "DP z=0.1", readings=[reading | {"n": 4, "unit": "whole cohort"}]), run[1], tmp_path)
    assert ("DP z=0.1", "bad", "labels perhaps read") in chips(few)
    assert "labels of a whole cohort perhaps read by analytic" in Page(few).text
    calm = written(changed(run, "DP z=0.1", readings=[reading | {"read": False}]), run[1], tmp_path)
    assert ("DP z=0.1", "good", "not broken") in chips(calm)


def test_an_attack_that_left_most_targets_out_shows_its_worst_case_and_its_count(run, tmp_path):
    few = {
        "median": None, "low": None, "high": None, "worst": 46.1, "n": 539, "claimed": 2, "rebuilt": 2,
        "recovered": 2 / 539, "verdict": "broken at rung L5 by analytic",
    }  # fmt: skip
    results = changed(run, "none", **few)
    text = Page(written(results, run[1], tmp_path)).text
    assert "< 1 % 2 of 539" in text
    assert "no claim analytic worst 46.1 dB guess" in text
    assert "nothing claimed of 537 of 539" in text
    assert "n = 539 537 without a claim" in text
    stream = io.StringIO()
    print_summary(results, Console(file=stream, width=100))
    assert "labels only" not in stream.getvalue()
    assert "at most 46.1" in stream.getvalue()
    assert "2 of 539 rebuilt" in stream.getvalue()


def with_epsilons(run, epsilons):
    """The run with the statements of one protocol's cells on digits changed, seed by seed; None is a failed cell."""
    results = copy.deepcopy(run[0])
    cells = [c for c in results["cells"] if c["labels"] == {"protocol": "DP z=0.1", "task": "digits"}]
    for cell, value in zip(cells, epsilons, strict=True):
        cell["privacy"]["epsilon"] = value or 0.0
        cell["status"] = "done" if value else "failed"
    return results


def test_the_epsilon_is_the_largest_over_seeds_and_never_a_failed_runs(run, tmp_path):
    text = Page(written(with_epsilons(run, [15.46, 20.13]), run[1], tmp_path)).text
    assert "20.2 per client the largest over seeds bounds next to nothing" in text
    assert "15.5 per client" not in text
    assert re.search(r"DP z=0.1 not broken [^“]*? 8\.43 per client", Page(
        written(with_epsilons(run, [None, 8.43]), run[1], tmp_path)
    ).text)  # fmt: skip
    lost = Page(written(with_epsilons(run, [None, None]), run[1], tmp_path)).text
    assert not re.search(r"\b0 per client", lost)


def test_statements_that_differ_by_setting_each_name_theirs(run, tmp_path):
    results = copy.deepcopy(run[0])
    for cell in results["cells"]:
        if cell["labels"] == {"protocol": "DP z=0.1", "task": "photos"} and cell["privacy"]:
            cell["privacy"]["epsilon"] = 7.0
    text = Page(written(results, run[1], tmp_path)).text
    assert "The statement behind each epsilon DP z=0.001 DP z=0.01 DP z=0.1, digits DP z=0.1, photos" in text
    assert "No epsilon holds for “none”." in text


def test_the_verdict_counts_what_each_attack_rebuilt(run, page):
    said = re.search(r"none broken rebuilt by ((?:\w+ \(\d+ of \d+\)(?:, | and )?)+)", page.text)[1]
    entries = [e for e in run[0]["summary"] if e["labels"] == {"protocol": "none", "task": "digits"}]
    rebuilt = {(e["attack"], str(e["rebuilt"]), str(e["n"])) for e in entries if e.get("rebuilt")}
    assert set(re.findall(r"(\w+) \((\d+) of (\d+)\)", said)) == rebuilt


def test_labels_that_the_adversary_was_told_are_no_figure(run, tmp_path):
    results = copy.deepcopy(run[0])
    for attack in (a for c in results["cells"] for a in c["attacks"]):
        attack["knowledge"] = ["labels"]
    text = Page(written(results, run[1], tmp_path)).text
    assert "was told" in text
    assert "guess 12 %" not in text


def test_the_command_is_the_one_that_was_given_or_none(run, page, tmp_path):
    assert "fedsim run" not in page.text
    assert "No command was stored" in page.text
    results = run[0] | {"environment": {"commands": ["./fs run base.py --seed 3", "fedsim attack x analytic"]}}
    assert "./fs run base.py --seed 3 fedsim attack x analytic" in Page(written(results, run[1], tmp_path)).text


def test_a_sum_stands_under_the_truth_of_the_clients_in_it(run, tmp_path):
    results = copy.deepcopy(run[0])
    for cell in results["cells"]:
        for attack in cell["attacks"] if cell["labels"]["protocol"] == "DP z=0.01" else ():
            if attack["victims"]:
                attack["victims"] = [merged(attack["victims"])]
    alts = [image["alt"] for image in Page(written(results, run[1], tmp_path)).named("img")]
    truth = [alt.removeprefix("Truth: ") for alt in alts if alt.startswith("Truth: ")]
    summed = [re.sub(r".*under DP z=0.01: |, PSNR.*", "", alt) for alt in alts if "under DP z=0.01:" in alt]
    assert summed
    assert set(summed) <= set(truth)
    assert not any("client -1" in alt for alt in alts)


def merged(victims):
    """Victims of one example each as the one victim that their sum is."""
    return {
        "client": -1,
        "owners": [[victim["client"], 0] for victim in victims],
        "figures": {name: [v["figures"][name][0] for v in victims] for name in victims[0]["figures"]},
        "labels_right": 1.0,
        "baseline": {"psnr_mean_image": [v["baseline"]["psnr_mean_image"][0] for v in victims]},
        "pictures": [victim["pictures"][0] for victim in victims],
    }


def test_bullets_name_the_worst_first_and_reasons_stand_with_the_verdict(run, tmp_path):
    results = changed(run, "none", verdict="not broken by it at rung L7 with the default budget")
    for entry in results["summary"]:
        if entry["labels"]["protocol"] == "DP z=0.1" and entry["attack"] == "analytic":
            entry["verdict"] = "inconclusive: its sanity case was lost"
    html = written(results, run[1], tmp_path)
    first = re.search(r"<ul class=bullets><li>(.*?)</li>", html)[1]
    assert first.index("broken: DP z=0.001") < first.index("not broken: none")
    assert "analytic: inconclusive: its sanity case was lost" in Page(html).text


def test_of_many_settings_the_first_two_verdicts_stand_open_and_the_others_are_folded(run, tmp_path):
    results = copy.deepcopy(run[0])
    for task in ("faces", "letters"):
        of_digits = [c for c in results["cells"] if c["labels"]["task"] == "digits"]
        results["cells"] += [{**c, "labels": {**c["labels"], "task": task}} for c in of_digits]
    results["axes"]["task"] += ["faces", "letters"]
    section = written(results, run[1], tmp_path).split("<section id=")[1]
    folded = re.findall(r"<summary>Verdict on (\w+)", section)
    assert folded == ["faces", "letters"]
    assert len(re.findall(r"<caption>Verdict on", section)) == 4
