"""The documents' pictures, from runs: ``python -m docs.picture quickstart runs/quickstart`` draws that scenario's.

Their columns are those of the run's report: by the report's rule, not by eye. Photographs and digits alone, whose
licences allow it, and of these no face.
"""

import base64
import io
import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.image import imread

from fedsim.report.blocks import Band
from fedsim.report.gallery import picture_gallery
from fedsim.report.palette import marks
from fedsim.report.reading import Results
from fedsim.report.tiles import Pictures
from fedsim.store import load_tensors

IMAGES = Path(__file__).parent / "images"
SHOWN: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "quickstart": ("analytic", {"task": "photos"}),
    "hospital_images": ("analytic", {"task.model": "dense"}),
    "cross_device": ("analytic", {"federation.dropout": "all stay"}),
    "flower_secagg": ("analytic", {"adversary": "split_view"}),
}
"""Scenario to the attack that its picture shows, and the setting."""


def draw(run: Path, out: Path, attack: str, labels: Mapping[str, str]) -> None:
    """Truth, guess and each protocol's claims of ``attack`` where ``labels`` are, PSNR in dB under each, as one PNG."""
    results = Results(json.loads((run / "results.json").read_text()))
    kept = {key: tensor for file in run.glob("cells/*/[tp]*.safetensors") for key, tensor in load_tensors(file).items()}
    pictures = Pictures({key: tensor.double().numpy() for key, tensor in kept.items()})
    (setting,) = (setting for setting in results.settings if labels.items() <= dict(setting).items())
    tried = [row for p in results.protocols for row in results.attempts_of(p, setting) if row["attack"] == attack]
    shown = picture_gallery(
        results, pictures, marks(results.protocols), setting, attack, tried[0]["round"], tried[0]["rung"]
    )
    assert shown is not None, f"{run} has no picture of {attack} in {labels}"
    size = 6.8, 1.1 * len(shown.bands)
    figure, axes = plt.subplots(len(shown.bands), shown.columns, figsize=size, squeeze=False)
    for band, row in zip(shown.bands, axes, strict=True):
        _band(band, list(row))
    figure.subplots_adjust(left=0.25, right=0.995, top=0.995, bottom=0.12 / size[1], hspace=0.24, wspace=0.04)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110, metadata={"Software": None})


def _band(band: Band, row: list[Axes]) -> None:
    """One row: a picture each with its first line under it, or why there is none."""
    name = str(getattr(band.name, "text", band.name))
    row[0].set_ylabel("no protection" if name == "none" else name, rotation=0, ha="right", va="center", labelpad=8)
    for place in row:
        place.set(xticks=[], yticks=[])
        place.spines[:].set_visible(False)
    if not band.tiles:
        reason = textwrap.fill(f"none: {band.reason}", 70)
        row[0].text(0, 0.5, reason, transform=row[0].transAxes, va="center", fontsize=9)
        for place in row[1:]:
            place.set_visible(False)
    for tile, place in zip(band.tiles, row, strict=False):
        if tile.source:
            place.imshow(imread(io.BytesIO(base64.b64decode(tile.source.partition(",")[2])), format="png"), cmap="gray")
        place.set_xlabel("" if band.tone == "truth" else tile.lines[0], labelpad=2, fontsize=8)


if __name__ == "__main__":
    draw(Path(sys.argv[2]), IMAGES / f"{sys.argv[1]}.png", *SHOWN[sys.argv[1]])
