"""What a sweep costs beside its cells: ``python -m tests.benchmarks.sweep_overhead [cells]``.

Cells of about two CPU seconds each, on two workers that are warm. Printed in one run: the cells' own CPU and wall
seconds, and what came on top, as a share of the cells' CPU seconds.
"""

import contextlib
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from fedsim import Attack, AttackBudget, Federation, Scenario, Task
from fedsim.sweep import sweep

ITERATIONS = 220
"""So many steps of gradient matching take about two seconds."""


def scenario(seeds: int) -> Scenario:
    """Ten settings, each with so many seeds."""
    attack = Attack(name="inverting_gradients", budget=AttackBudget(iterations=ITERATIONS, restarts=1))
    task = Task(dataset="photos", model="convnet")
    return Scenario(
        name="overhead",
        task=task,
        federation=Federation(clients=2),
        attacks=[attack],
        seeds=range(seeds),
        compare={"federation.learning_rate": {f"{rate}": rate / 100 for rate in range(1, 11)}},
    )


def main(cells: int) -> None:
    """Warm up, sweep, and print the line."""
    with tempfile.TemporaryDirectory() as place:
        sweep(scenario(1), Path(place) / "warm")
        out = Path(place) / "out"
        started, cpu = time.perf_counter(), time.process_time()
        sweep(scenario(cells // 10), out)
        wall, driver = time.perf_counter() - started, time.process_time() - cpu
        with contextlib.closing(sqlite3.connect(out / "results.sqlite")) as database:
            rows = database.execute("select worker, seconds, cpu_seconds from cells").fetchall()
    workers = len({worker for worker, _, _ in rows})
    busy, work = sum(row[1] for row in rows), sum(row[2] for row in rows)
    print(f"{cells} cells: {work:.1f} CPU s ({work / cells:.2f} each), {busy:.1f} s busy on {workers} workers")
    print(f"driver {driver:.1f} CPU s = {100 * driver / work:.1f} % of the cells' CPU seconds")
    print(f"wall {wall:.1f} s: {100 * (workers * wall - busy) / work:.1f} % of the cells' CPU seconds were spent idle")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
