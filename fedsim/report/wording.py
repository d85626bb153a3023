"""How the report says things: numbers to the digits that mean something, and plain words for names in the scenario."""

import math
from collections.abc import Mapping
from typing import Any

MISSING = "–"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

SERVER_SEES = {
    "plain": "each client's update in the clear",
    "client_checks": "each client's update in the clear, from clients that found nothing wrong with the model",
    "client_dp": "each client's update after the client clipped it and added noise",
    "sample_dp": "each client's update, trained with per-example clipping and noise",
    "secure_aggregation": "a masked vector from each client, and the sum over the cohort",
    "trusted_adder": "the sum over the cohort, from a trusted party that adds",
    "homomorphic": "a ciphertext from each client, which it adds without opening",
}

MUST_TRUST = {
    "plain": "the server, with everything an update reveals",
    "client_checks": "the client's software: the checks happen there",
    "client_dp": "the client's software: the clipping and the noise happen there",
    "sample_dp": "the client's software: the clipping and the noise happen there",
    "secure_aggregation": "that enough clients are honest, and that the cohort does not shrink to a few",
    "trusted_adder": "the party that adds: it reads every update; and that enough clients are honest",
    "weak_profile": "that the server keeps to the protocol, wherever this profile's clients do not check",
    "homomorphic": "whoever holds the decryption key not to collude with the server",
}

METRICS = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "mse": "mean squared error",
    "identified": "identified in the pool",
    "labels": "labels right",
    "columns": "columns right",
    "exact": "wholly right",
    "numeric": "numbers within tolerance",
    "categorical": "categories right",
    "tokens": "words in place",
    "rouge_l": "longest common sequence",
}

SHARES = {"identified", "labels", "columns", "exact", "numeric", "categorical", "tokens", "rouge_l"}
"""Metrics between 0 and 1 that count something: written as a percentage."""


def finite(value: Any) -> float | None:
    """``value`` as a float, or None where it is no number at all; infinity stays."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number


def number(value: Any, digits: int = 3) -> str:
    """``digits`` significant digits; integers in full; a dash where there is no number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    read = finite(value)
    if read is None:
        return MISSING
    if math.isinf(read):
        return "∞" if read > 0 else "−∞"
    if read == 0:
        return "0"
    size = math.floor(math.log10(abs(read)))
    if size >= digits:
        text = f"{read if read.is_integer() else round(read, digits - 1 - size):,.0f}"
    elif size < -4:
        mantissa, exponent = f"{read:.{digits - 1}e}".split("e")
        text = f"{mantissa} × 10{str(int(exponent)).translate(RAISED)}".removeprefix("1.00 × ")
    else:
        text = f"{read:.{digits - 1 - size}f}"
    return text.replace("-", "−")


def share(value: Any) -> str:
    """A number in [0, 1] as a percentage."""
    read = finite(value)
    if read is None or math.isinf(read):
        return number(read)
    if 0 < read < 0.005:
        return "< 1 %"
    return "> 99 %" if 0.995 <= read < 1 else f"{100 * read:.0f} %"


def measure(metric: str, value: Any) -> str:
    """One value of a metric in its usual form, without the unit."""
    read = finite(value)
    if read is None or math.isinf(read):
        return number(read)
    if metric == "psnr":
        return f"{read:.1f}".replace("-", "−")
    if metric in SHARES:
        return share(read)
    if metric == "ssim":
        return f"{read:.2f}".replace("-", "−")
    return number(read)


def interval(metric: str, entry: Mapping[str, Any]) -> str:
    """``median [low, high]`` of a summary entry."""
    middle = measure(metric, entry.get("median"))
    if finite(entry.get("high")) is None or (finite(entry.get("low")) is None and not unclaimed(entry)):
        return "no claim" if middle == MISSING and unclaimed(entry) else middle
    bounds = [measure(metric, entry.get(end)) for end in ("median", "low", "high")]
    middle, low, high = ("no claim" if text == MISSING else text for text in bounds)
    return f"{middle} [{low}, {high}]"


def unclaimed(entry: Mapping[str, Any]) -> int:
    """Targets of a summary entry for which the attack claimed nothing: they rank below every figure."""
    return int(entry.get("n") or 0) - int(entry.get("claimed", entry.get("n")) or 0)


def shown(entry: Mapping[str, Any]) -> bool:
    """Whether a summary entry holds a figure of examples, be it of one target alone."""
    return finite(entry.get("median")) is not None or finite(entry.get("worst")) is not None


def size(value: Any) -> str:
    """A count of bytes in decimal units."""
    read = finite(value)
    if read is None or math.isinf(read):
        return number(read)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(read) < 1000 or unit == "GB":
            break
        read /= 1000
    return f"{read:.0f} {unit}" if unit == "B" else f"{number(read)} {unit}"


def seconds(value: Any) -> str:
    """Seconds in the unit that fits them."""
    read = finite(value)
    if read is None or math.isinf(read):
        return number(read)
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if abs(read) * factor >= 1:
            return f"{number(read * factor, 2 if read * factor < 100 else 3)} {unit}"
    return "0" if read == 0 else "< 1 µs"


def epsilon(privacy: Mapping[str, Any] | None) -> str:
    """The epsilon of a privacy statement; an absent one is no guarantee, a null one is infinite."""
    return at_most(privacy.get("epsilon")) if privacy else "no guarantee"


def bounds_little(privacy: Mapping[str, Any]) -> bool:
    """Whether an epsilon is so large, or infinite, that it allows nearly any leak: e to the 10 is odds of 22,000."""
    read = finite(privacy.get("epsilon"))
    return read is None or read > 10


def at_most(value: Any) -> str:
    """An upper bound to three significant digits, rounded up so that it stays one; null is infinite."""
    read = finite(value)
    if read is None or math.isinf(read):
        return "∞"
    if read <= 0:
        return number(read)
    unit = 10.0 ** (math.floor(math.log10(read)) - 2)
    return number(math.ceil(read / unit - 1e-9) * unit)


def plain(value: Any) -> str:
    """Any JSON value as short text for a table cell."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and 1e-4 <= abs(value) < 1e3:
        return f"{value:.4g}".replace("-", "−")
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, Mapping):
        if {"mean", "min", "max"} <= set(value):
            return f"{plain(value['mean'])} ({plain(value['min'])} to {plain(value['max'])})"
        return ", ".join(f"{key} {plain(item)}" for key, item in sorted(value.items())) or MISSING
    if isinstance(value, (list, tuple)):
        items = [plain(item) for item in value]
        return ("; " if any("," in item for item in items) else ", ").join(items) or MISSING
    return str(value)
