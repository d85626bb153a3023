"""Evidence that masking was on: what a masked vector must look like to whoever holds no key."""

import numpy as np
from scipy.stats import chi2

from crypto.masks import Words


def uniformity(words: Words) -> float:
    """The p-value of the bytes of ``words`` being uniform (chi-squared, 255 degrees): tiny where masks are missing."""
    counts = np.bincount(words.view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), 255))
