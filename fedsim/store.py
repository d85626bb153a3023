"""The run folder: views, truths, claims and figures on disk, without pickle, each file written whole or not at all."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from attacks.view import Message, Update, View
from fedsim.experiment import Experiment
from fedsim.federation import Training
from fedsim.scenario import Scenario, explain
from fedsim.search_path import own_folders

SCHEMA_VERSION = 1
UNFINISHED = "cells.unfinished"
UNREADABLE = "move it away, with the folder of its cell if it lies in one, and go on with --resume"
"""What to do about a file that another program, or a disk, has spoilt: fedsim itself writes each whole."""


class StoreError(ValueError):
    """A run folder that cannot be used as asked; one line that says why, and what to do."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one scenario's run. A run works in ``stage`` until it is finished, then takes the place of what
    an earlier run of the same scenario left in ``cells``."""

    path: Path
    stage: str = "cells"

    @classmethod
    def open(cls, path: Path, scenario: Scenario) -> "RunFolder":
        """The folder as it is, of a scenario that it already holds; or a new or empty folder, claimed for it."""
        with _one_line(path):
            path.mkdir(parents=True, exist_ok=True)
            if not os.access(path, os.W_OK):
                raise StoreError(f"out = {path}: not writable; choose another folder with --out")
            claim = path / "scenario.json"
            if claim.exists():
                held = cls.scenario_of(path)
                if held.digest != scenario.digest:
                    raise StoreError(
                        f"out = {path}: holds another scenario ({held.name!r}, digest {held.digest[:12]}, "
                        f"this one is {scenario.digest[:12]}); choose another folder with --out"
                    )
            elif any(path.iterdir()):
                raise StoreError(f"out = {path}: not empty, and no run of fedsim; choose another folder with --out")
            else:
                write_json(claim, {"schema_version": SCHEMA_VERSION, "scenario": scenario.model_dump(mode="json")})
        return cls(path)

    @classmethod
    def begin(cls, path: Path, scenario: Scenario, *, resume: bool, truth: bool = True) -> "RunFolder":
        """Open the folder for a run that goes on (``resume``), or starts afresh beside what is there.

        Once a run keeps no truth, going on with it keeps none either.
        """
        cls.open(path, scenario)
        fresh = cls(path, UNFINISHED)
        unfinished = any((path / UNFINISHED).glob("*/measured.json"))
        if unfinished and not resume:
            raise StoreError(f"out = {path}: holds an unfinished run; go on with --resume, or choose another --out")
        if not unfinished:
            fresh.discard()  # what is there was cut off before anything was finished
        folder = cls(path) if resume and not unfinished and (path / "cells").exists() else fresh
        write_json(folder.path / folder.stage / "run.json", {"truth": truth and folder.truth, "folders": own_folders()})
        return folder

    @property
    def truth(self) -> bool:
        """Whether this run writes what clients hold."""
        return bool(self._settings.get("truth", True))

    @property
    def folders(self) -> list[str]:
        """Where this run found the user's own models and data."""
        return list(self._settings.get("folders", []))

    @property
    def _settings(self) -> Mapping[str, Any]:
        settings = self.path / self.stage / "run.json"
        return read_json(settings) if settings.exists() else {}

    @property
    def replaces(self) -> bool:
        """Whether an earlier run of the scenario was finished here, whose place this one would take."""
        return self.stage != "cells" and (self.path / "cells").exists()

    def settle(self) -> "RunFolder":
        """Put the finished stage in the place of what was there."""
        if self.stage == "cells":
            return self
        with _one_line(self.path):
            old = self.path / "cells.old"
            shutil.rmtree(old, ignore_errors=True)
            if self.replaces:
                (self.path / "cells").rename(old)
            (self.path / self.stage).rename(self.path / "cells")
            shutil.rmtree(old, ignore_errors=True)
        return RunFolder(self.path)

    def discard(self) -> None:
        """Drop the stage, and leave an earlier finished run as it was."""
        shutil.rmtree(self.path / self.stage, ignore_errors=True)

    @staticmethod
    def scenario_of(path: Path) -> Scenario:
        """The scenario whose run ``path`` holds."""
        claim = path / "scenario.json"
        if not claim.is_file():
            raise StoreError(f"{path}: no run folder (it has no scenario.json)")
        content = read_json(claim)
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            remedy = "read it with the fedsim that wrote it, or choose another folder with --out"
            raise StoreError(f"{path}: schema {version}, this is {SCHEMA_VERSION}; {remedy}")
        try:
            return Scenario(**content["scenario"])
        except (KeyError, TypeError, ValidationError) as error:
            why = "; ".join(explain(error)) if isinstance(error, ValidationError) else "it holds no scenario"
            raise StoreError(
                f"{claim}: {why}; read it with the fedsim that wrote it, or choose another --out"
            ) from None

    def cell(self, digest: str) -> Path:
        """The folder of one cell."""
        return self.path / self.stage / digest[:16]

    def check_same(self, experiment: Experiment) -> None:
        """Refuse a stored cell whose data, division or untrained model are not those that the scenario gives now."""
        held = read_json(self.cell(experiment.scenario.digest) / "training.json")["fingerprint"]
        if held != experiment.fingerprint:
            task = experiment.scenario.task
            raise StoreError(
                f"{self.path}: was trained on other data or another model than {task.dataset!r} and {task.model!r} "
                "give now; put these back, or run again with another --out"
            )


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a run folder for writing; the operating system lets go of it when the process ends, however it ends.

    Raises StoreError while another process holds it.
    """
    with _one_line(path):
        path.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise StoreError(f"out = {path}: another run is writing there; wait for it, or choose another --out") from None
    try:
        yield
    finally:
        os.close(handle)


def save_training(
    folder: Path, experiment: Experiment, training: Training, view: View, measured: Mapping[str, Any]
) -> None:
    """Store a trained cell: history, final weights, the server's view, and last what was measured on the way."""
    save_view(folder, view)
    save_tensors(folder / "model.safetensors", training.state)
    released = {f"{r}/{name}": tensor for r, state in training.released.items() for name, tensor in state.items()}
    save_tensors(folder / "released.safetensors", released)
    write_json(
        folder / "training.json",
        {
            "scenario": experiment.scenario.model_dump(mode="json"),
            "fingerprint": experiment.fingerprint,
            "history": list(training.history),
        },
    )
    write_json(folder / "measured.json", measured)


def load_training(folder: Path) -> Training:
    """Read back what ``save_training`` stored."""
    released: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_tensors(folder / "released.safetensors").items():
        round, name = key.split("/", 1)
        released.setdefault(int(round), {})[name] = tensor
    history = tuple(read_json(folder / "training.json")["history"])
    return Training(history, read_tensors(folder / "model.safetensors"), released=released)


def save_view(folder: Path, view: View) -> None:
    """Store a view. Plain arrays are stored once, as broadcasts and updates; messages keep what else they carried."""
    tensors: dict[str, Tensor] = {}
    for digest, state in view.broadcasts.items():
        tensors |= {f"broadcast/{digest}/{name}": tensor for name, tensor in state.items()}
    updates = []
    for index, update in enumerate(view.updates):
        tensors |= {f"update/{index}/{name}": tensor for name, tensor in update.arrays.items()}
        tensors |= {f"buffers/{index}/{name}": tensor for name, tensor in update.buffers.items()}
        fields = ("round", "client", "kind", "base", "contributors", "partial", "clients", "weight")
        updates.append({**{name: getattr(update, name) for name in fields}, "side": dict(update.side)})
    messages = []
    for message in view.messages:
        envelope = ("round", "client", "direction", "stage", "form", "bytes", "error")
        rest = {"metrics": as_json(message.metrics), "configs": as_json(message.configs)}
        messages.append({**{name: getattr(message, name) for name in envelope}, **rest})
    save_tensors(folder / "view.safetensors", tensors)
    planted = {round: view.planted[round] for round in sorted(view.planted)}
    content = {"party": view.party, "updates": updates, "messages": messages, "planted": planted}
    write_json(folder / "view.json", content)


def load_view(folder: Path, model: nn.Module) -> View:
    """Read back a view; ``model`` is the architecture, which the scenario names."""
    content, tensors = read_json(folder / "view.json"), read_tensors(folder / "view.safetensors")

    def group(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}

    digests = {key.split("/")[1] for key in tensors if key.startswith("broadcast/")}
    return View(
        party=content["party"],
        model=model,
        broadcasts={digest: group(f"broadcast/{digest}/") for digest in sorted(digests)},
        messages=tuple(Message(**message) for message in content["messages"]),
        planted={int(round): planted for round, planted in content.get("planted", {}).items()},
        updates=tuple(
            Update(
                arrays=group(f"update/{index}/"),
                buffers=group(f"buffers/{index}/"),
                **{**update, "clients": tuple(update["clients"])},
            )
            for index, update in enumerate(content["updates"])
        ),
    )


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Store named tensors, whole or not at all."""
    with _whole(path) as temporary:
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, temporary)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors; none where the file was left out."""
    return read_tensors(path) if path.exists() else {}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors, naming the file when it holds none."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); {UNREADABLE}") from None


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; a value that is not finite becomes null."""
    text = json.dumps(as_json(content), indent=1, sort_keys=True, allow_nan=False)
    with _whole(path) as temporary:
        temporary.write_text(text + "\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with _whole(path) as temporary:
        temporary.write_bytes(content)


def read_json(path: Path) -> Any:
    """Read JSON, naming the file when it is not."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); {UNREADABLE}") from None


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place once it is complete."""
    with _one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        os.close(handle)
        try:
            yield Path(name)
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals (read-only, full, a file in the way) into one line."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error.strerror or error}); choose another folder or make room"
        ) from None
    except SafetensorError as error:
        raise StoreError(f"{path}: cannot be written ({error}); choose another folder or make room") from None


def as_json(value: Any) -> Any:
    """JSON's own types: floats that are not finite become None, bytes their length."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, bytes):
        return {"bytes": len(value)}
    if isinstance(value, Tensor):
        return as_json(value.tolist())
    return value
