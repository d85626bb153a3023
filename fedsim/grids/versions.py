"""What must be the same on every machine of a cluster for its numbers to be the same."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "fedsim-leakage",
    "ray",
    "flwr",
    "flwr-datasets",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "scikit-image",
    "dp-accounting",
    "safetensors",
    "cryptography",
    "tenseal",
)


def versions() -> dict[str, str]:
    """Python's version and those of the packages that figures depend on, in this process."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def differences(theirs: Mapping[str, str]) -> list[str]:
    """Each package whose version at a worker is not the one here, with both."""
    here = versions()
    return [f"{name} {theirs.get(name, 'none')} (here {here[name]})" for name in here if theirs.get(name) != here[name]]
