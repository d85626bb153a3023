"""``fedsim serve``: the model of a finished run behind the service, on this machine; and who looks suspicious there."""

from pathlib import Path

from torch import nn

from fedsim.callers import Callers
from fedsim.experiment import Experiment
from fedsim.store import RunFolder, StoreError, load_training
from fedsim.watching import Watched, watched_file


def serve(folder: Path, callers: Path, log: Path, host: str, port: int) -> None:
    """Serve until interrupted. Raises StoreError where there is no model, TaskError for a list that cannot be used."""
    try:
        import uvicorn

        from fedsim.service import application
    except ImportError as missing:
        raise StoreError(f"{missing.name} is not installed; install fedsim with its extra 'service'") from None
    known = Callers.load(callers)
    experiment, model = _served(folder)
    data = experiment.dataset
    app = application(
        model,
        input_shape=data.input_shape,
        num_classes=data.num_classes,
        callers=known,
        log=log,
        dtype=data.inputs.dtype,
        seed=experiment.seed,
    )
    uvicorn.run(app, host=host, port=port, log_level="warning")


def suspects(folder: Path, log: Path) -> dict[str, Watched]:
    """Each caller's signals in the log of that service, against honest callers who ask about held-out data.

    Raises StoreError where there is no model or no log, LogBroken for a log that was tampered with.
    """
    if not log.is_file():
        raise StoreError(f"{log}: there is no such log; give the one that 'fedsim serve' wrote")
    experiment, model = _served(folder)
    return watched_file(log, model, experiment.test_data()[0])


def _served(folder: Path) -> tuple[Experiment, nn.Module]:
    """The first cell of a finished run, and its trained model."""
    scenario = RunFolder.scenario_of(folder)
    run, cell = RunFolder.open(folder, scenario), scenario.cells()[0]
    if not (run.cell(cell.digest) / "model.safetensors").exists():
        raise StoreError(f"{folder}: holds no trained model of its first cell; run the scenario first")
    experiment = Experiment(cell.scenario)
    model = experiment.initial_model()
    model.load_state_dict(dict(load_training(run.cell(cell.digest)).state))
    return experiment, model
