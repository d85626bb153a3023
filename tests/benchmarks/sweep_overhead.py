"""What a sweep costs beside its cells: ``python -m tests.benchmarks.sweep_overhead [cells]``.

Cells of about two CPU seconds each, on two workers that are warm. Printed in one run: the cells' own CPU and wall
seconds, and what came on top, as a share of the cells' CPU seconds: the driver's CPU, and each stage's idle workers.
Wall seconds, and so idleness, mean little on a machine that others use: the load is printed with them.
"""

import contextlib
import os
import sqlite3
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

from fedsim import Attack, AttackBudget, Federation, Scenario, Task
from fedsim.report.progress import Progress
from fedsim.sweep import sweep

ITERATIONS = 540
"""So many steps of gradient matching take about two seconds."""


began: list[tuple[str, float, float]] = []
"""Each stage with the wall and the driver's CPU seconds at which it began."""


class Clock(Progress):
    """Notes when each stage of the sweep began."""

    def stage(self, text: str, total: int) -> None:
        began.append((text, time.perf_counter(), time.process_time()))
        super().stage(text, total)


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
    """Warm up, sweep, and print the lines."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        sweep(scenario(1), Path(place) / "warm")
        out = Path(place) / "out"
        with patch("fedsim.sweep.Progress", Clock):
            sweep(scenario(cells // 10), out)
        began.append(("end", time.perf_counter(), time.process_time()))
        with contextlib.closing(sqlite3.connect(out / "results.sqlite")) as database:
            rows = database.execute("select worker, seconds, cpu_seconds from cells").fetchall()
    workers = len({worker for worker, _, _ in rows})
    busy, work = sum(row[1] for row in rows), sum(row[2] for row in rows)
    print(f"{cells} cells: {work:.1f} CPU s ({work / cells:.2f} each), {busy:.1f} s busy on {workers} workers")
    print(f"load {load:.1f} before, {os.getloadavg()[0]:.1f} after, on {os.cpu_count()} cores")
    total_cpu = total_idle = 0.0
    for (stage, wall, cpu), (_, ended, cpu_ended) in pairwise(began):
        idle = workers * (ended - wall) - (busy if stage == "cells" else 0.0)
        total_cpu, total_idle = total_cpu + cpu_ended - cpu, total_idle + idle
        print(f"{stage}: driver {share(cpu_ended - cpu, work)}, workers idle {share(idle, work)}")
    print(f"in all: driver {share(total_cpu, work)}, workers idle {share(total_idle, work)}")


def share(seconds: float, work: float) -> str:
    """Seconds, and what that is of the cells' CPU seconds."""
    return f"{seconds:.1f} s = {100 * seconds / work:.1f} %"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
