"""Pictures for the page: float arrays as PNG data URIs, one pixel an example's pixel."""

import base64
import io
from collections.abc import Mapping, Set

import numpy as np
from PIL import Image

SIDE = 128
"""Pixels; a picture with more on a side is drawn smaller."""


class Pictures:
    """Pictures by key, as data URIs; remembers how many it had to clip into [0, 1], to reduce, or found broken."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays
        self.shown = 0
        self.clipped = 0
        self.broken = 0
        self.reduced = 0
        self.spent = 0
        """Characters of all that was shown."""

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    @property
    def keys(self) -> Set[str]:
        """All keys."""
        return self._arrays.keys()

    def array(self, key: str) -> np.ndarray:
        """The array under ``key``, (C, H, W) or (H, W), as it was given."""
        return np.asarray(self._arrays[key])

    def uri(self, key: str) -> str | None:
        """The picture as a data URI, clipped to [0, 1], non-finite pixels mid-grey; None without one."""
        if key not in self:
            return None
        values = self.array(key).astype(np.float64)
        finite = np.isfinite(values)
        self.shown += 1
        self.broken += not finite.all()
        self.clipped += bool(((values < -1e-6) | (values > 1 + 1e-6))[finite].any())
        self.reduced += max(values.shape[-2:]) > SIDE
        text = png(np.where(finite, values, 0.5))
        self.spent += len(text)
        return text


def png(values: np.ndarray) -> str:
    """A (C, H, W) or (H, W) array in [0, 1] as a PNG data URI; one channel is grey, three are colour."""
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = values[0] if values.shape[0] == 1 else np.moveaxis(values, 0, -1)
    if values.ndim == 3 and values.shape[-1] != 3:
        raise ValueError(f"picture of shape {values.shape}: must be (H, W), (1, H, W) or (3, H, W)")
    pixels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
