"""What a user sees while a run goes on: a live bar on a terminal, plain lines in a log, nothing when quiet."""

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Stages of counted steps: ``with Progress(quiet=False) as progress: progress.stage("training", 12)``.

    Writes to ``stream`` (standard error), so that standard output stays free for results.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._quiet = quiet
        self._console = Console(file=stream or sys.stderr, highlight=False)
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._text, self._total, self._done, self._said = "", 0, 0, 0
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False, style="dim"),
                console=self._console,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, text: str, total: int) -> None:
        """Begin a stage of ``total`` steps."""
        self._text, self._total, self._done, self._said = text, total, 0, 0
        self._started = time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task(text, total=total, note="")
        elif not self._quiet:
            self._line(f"{text}: {total} to do")

    def advance(self, n: int = 1, text: str = "") -> None:
        """``n`` more steps are done; ``text`` says which. In a log, a line for each tenth of the stage."""
        self._done += n
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=n, note=text)
            return
        tenth = 10 * self._done // max(self._total, 1)
        if not self._quiet and (tenth > self._said or self._total <= 10):
            self._said = tenth
            self._line(f"{self._text}: {self._done}/{self._total}{f' {text}' if text else ''}{self._left()}")

    def _left(self) -> str:
        """How long the rest of the stage takes at the pace so far; nothing where that is seconds."""
        left = (time.monotonic() - self._started) * (self._total - self._done) / max(self._done, 1)
        return f", about {left / 60:.0f} min left" if left > 90 else ""

    def _line(self, text: str) -> None:
        self._console.out(text, highlight=False)
