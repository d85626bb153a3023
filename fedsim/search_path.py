"""Where a user's own models and data are looked for: in the folders on Python's path that hold no installed packages.

The folder of a scenario's script is one of them, and so is the working directory.
"""

import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path


def own_folders() -> list[str]:
    """These folders, absolute, in Python's order; the working directory comes last where it is not on the path."""
    installed = [Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    found = [Path(entry).resolve() for entry in [*sys.path, ""]]
    own = [f for f in found if f.is_dir() and not any(f.is_relative_to(place) for place in installed)]
    return [str(folder) for folder in dict.fromkeys(own)]


def add_folders(folders: Iterable[str]) -> None:
    """Look there first from now on."""
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]


def find(path: str) -> Path | None:
    """The file or folder at ``path``: from the working directory if it is there, else from the own folders."""
    wanted = Path(path).expanduser()
    return next((place for folder in ("", *own_folders()) if (place := folder / wanted).exists()), None)
