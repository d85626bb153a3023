"""The README's picture, from a run: ``python -m docs.picture runs/quickstart docs/images/quickstart.png``.

Its columns are those of the run's report: by the report's rule, not by eye. Photographs alone, whose licences allow it.
"""

import base64
import io
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.image import imread

from fedsim.report.gallery import picture_gallery
from fedsim.report.palette import marks
from fedsim.report.reading import Results
from fedsim.report.tiles import Pictures
from fedsim.store import load_tensors

TASK, ATTACK, RUNG = "photos", "analytic", "L7"


def draw(run: Path, out: Path) -> None:
    """Truth, guess and each protocol's claims of ``ATTACK`` on ``TASK``, with PSNR in dB under each, as one PNG."""
    results = Results(json.loads((run / "results.json").read_text()))
    kept = {key: tensor for file in run.glob("cells/*/[tp]*.safetensors") for key, tensor in load_tensors(file).items()}
    pictures = Pictures({key: tensor.double().numpy() for key, tensor in kept.items()})
    (setting,) = (setting for setting in results.settings if dict(setting).get("task") == TASK)
    shown = picture_gallery(results, pictures, marks(results.protocols), setting, ATTACK, 1, RUNG)
    assert shown is not None, f"{run} has no picture of {ATTACK} on {TASK}"
    figure, axes = plt.subplots(len(shown.bands), shown.columns, figsize=(6.4, 1.1 * len(shown.bands)))
    for band, row in zip(shown.bands, axes, strict=True):
        name = getattr(band.name, "text", band.name)
        row[0].set_ylabel("no protection" if name == "none" else name, rotation=0, ha="right", va="center", labelpad=8)
        for tile, place in zip(band.tiles, row, strict=True):
            place.imshow(imread(io.BytesIO(base64.b64decode(tile.source.partition(",")[2])), format="png"))
            place.set(xticks=[], yticks=[])
            place.set_xlabel("" if band.tone == "truth" else tile.lines[0], labelpad=2, fontsize=8)
            place.spines[:].set_visible(False)
    figure.subplots_adjust(left=0.2, right=0.995, top=0.995, bottom=0.035, hspace=0.24, wspace=0.04)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
