"""The cost model beside whole runs: CPU seconds counted from unit costs over those measured in clients and server.

    python -m tests.benchmarks.costs_in_run [inline|ray]

One line a setting: the ratio (wanted: 0.8 to 1.2), what part of the count does not depend on the model, and bytes
counted over bytes that crossed the wire. Unit costs are measured once, after the first run: a machine whose load
changes between them and a run shows in the ratio.
"""

import os

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import sys
import tempfile
from pathlib import Path

from fedsim import Attack, Federation, Scenario, SecureAggregation, Task, run

SETTINGS = [  # clients, neighbours, hidden units, dropout, profile
    (20, None, 4000, 0.0, "semi_honest"),
    (20, None, 4000, 0.0, "paper"),
    (10, None, 20_000, 0.0, "paper"),
    (60, 22, 400, 0.0, "paper"),
    (100, 22, 1000, 0.1, "semi_honest"),
    (100, 22, 1000, 0.1, "paper"),
    (6, None, 10, 0.0, "paper"),
]


def main(engine: str) -> None:
    print("clients  neighbours  values    drop-outs  profile      counted s  measured s  ratio  fixed  bytes up, down")
    for clients, neighbours, hidden, dropout, profile in SETTINGS:
        scenario = Scenario(
            name="costs",
            task=Task(dataset="digits", model="mlp", model_options={"hidden": [hidden]}),
            federation=Federation(
                clients=clients, rounds=2, batch_size=2, learning_rate=0.001, weighted=False, dropout=dropout
            ),
            protocol=[SecureAggregation(clip=8.0, profile=profile, neighbours=neighbours)],
            attacks=[Attack(name="prior")],
        )
        with tempfile.TemporaryDirectory() as folder:
            result = run(scenario, Path(folder) / "run", engine=engine)  # type: ignore[arg-type]
        (evidence,) = result.results["evidence"].values()
        model, size = evidence["cost_model"], result.cells[0]["cost"]["parameters"]
        counted, measured = (sum(model["cpu_seconds"][which].values()) for which in ("predicted", "measured"))
        wire = [model["bytes"]["predicted"][way] / model["bytes"]["measured"][way] for way in ("up", "down")]
        print(
            f"{clients:7}  {neighbours or clients - 1:10}  {size:9,}  {dropout:8}  {profile:11}  {counted:9.3f}  "
            f"{measured:10.3f}  {counted / measured:5.2f}  {model['independent_of_model_size']:5.2f}  "
            f"{wire[0]:.3f} {wire[1]:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:] or ["inline"])
