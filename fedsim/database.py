"""One SQLite file that a sweep's results stream into: a row a cell, and a row a figure, for any tool to query.

Whatever writes ``results.json`` beside it later brings it up to date.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedsim.store import StoreError

DATABASE = "results.sqlite"
SCHEMA_VERSION = 1
WORK = ("node", "worker", "seconds", "cpu_seconds")
"""Who did a cell, and how long it took."""

TABLES = """
create table sweep (digest text primary key, name text not null);
create table cells (
    digest text primary key, labels text not null, seed integer not null, status text not null, cause text,
    node text, worker integer, seconds real, cpu_seconds real
);
create table figures (
    digest text not null references cells, attack text not null, round integer not null, rung text not null,
    status text not null, client integer, example integer, metric text, value real
);
create index figures_by_cell on figures (digest);
"""


class Database:
    """The results of one sweep. Every cell is added in one transaction, so a killed driver leaves whole cells.

    Raises StoreError for a file that is no such database, of another schema version, or of another scenario.
    """

    def __init__(self, path: Path, digest: str, name: str) -> None:
        self.path = path
        with self._mended():
            self._sqlite = sqlite3.connect(path)
            version = self._sqlite.execute("pragma user_version").fetchone()[0]
            tables = self._sqlite.execute("select count(*) from sqlite_master").fetchone()[0]
            if version == 0 and tables == 0:
                with self._sqlite:
                    self._sqlite.executescript(f"begin; {TABLES} pragma user_version = {SCHEMA_VERSION}; commit;")
                    self._sqlite.execute("insert into sweep values (?, ?)", (digest, name))
            elif version != SCHEMA_VERSION:
                raise StoreError(
                    f"{path}: schema {version}, this is {SCHEMA_VERSION}; move it away and go on with --resume, which "
                    "writes it again from the finished cells"
                )
            held = self._sqlite.execute("select digest from sweep").fetchall()
            if held != [(digest,)]:
                raise StoreError(f"{path}: holds another sweep; choose another folder with --out")

    def add(self, cell: Mapping[str, Any], **work: Any) -> None:
        """Add what ``cell.json`` holds, in the place of what is there; ``work`` says who did it."""
        digest = cell["digest"]
        row = (digest, json.dumps(cell["labels"]), cell["seed"], cell["status"], cell["cause"])
        where = tuple(work.get(name) for name in WORK)
        with self._mended(), self._sqlite:
            self._drop([digest])
            self._sqlite.execute("insert into cells values (?, ?, ?, ?, ?, ?, ?, ?, ?)", row + where)
            self._sqlite.executemany("insert into figures values (?, ?, ?, ?, ?, ?, ?, ?, ?)", _figures(cell))

    def bring_up_to_date(self, cells: Iterable[Mapping[str, Any]]) -> None:
        """Add every cell that is not there, and put those anew whose status, cause or figures are others by now.

        Who did the work stays on record where the outcome does: attacks made since are figures, not another training.
        """
        for cell in cells:
            outcome, work, figures = self._held(cell["digest"])
            same = outcome == (cell["status"], cell["cause"])
            if not same or figures != list(_figures(cell)):
                self.add(cell, **(work if same else {}))

    def _held(self, digest: str) -> tuple[tuple[Any, ...], dict[str, Any], list[tuple[Any, ...]]]:
        """Status and cause of a cell, who did it, and its figures; all empty where it is not there."""
        with self._mended():
            asked = f"select status, cause, {', '.join(WORK)} from cells where digest = ?"
            row = self._sqlite.execute(asked, (digest,)).fetchone() or ()
            figures = self._sqlite.execute("select * from figures where digest = ? order by rowid", (digest,))
            return row[:2], dict(zip(WORK, row[2:], strict=False)), figures.fetchall()

    def forget(self, digests: Iterable[str]) -> None:
        """Drop the cells that are about to be run again."""
        with self._mended(), self._sqlite:
            self._drop(digests)

    def _drop(self, digests: Iterable[str]) -> None:
        gone = [(digest,) for digest in digests]
        self._sqlite.executemany("delete from figures where digest = ?", gone)
        self._sqlite.executemany("delete from cells where digest = ?", gone)

    def close(self) -> None:
        """Let go of the file."""
        self._sqlite.close()

    @contextmanager
    def _mended(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path}: cannot be used ({error}); move it away and go on with --resume, which writes it again "
                "from the finished cells"
            ) from None


def update_database(folder: Path, results: Mapping[str, Any]) -> None:
    """Make the database of a run folder, where a sweep left one, tell what ``results`` do.

    A sweep that took an earlier run's place has kept its own among its cells until now.
    """
    own = folder / "cells" / DATABASE
    if own.exists():
        own.replace(folder / DATABASE)
    if (folder / DATABASE).exists():
        database = Database(folder / DATABASE, results["digest"], results["scenario"]["name"])
        database.bring_up_to_date(results["cells"])
        database.close()


def _figures(cell: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """A row for each figure: of each example for attacks that rebuild data, of the cell for those that infer from it.

    An attack without figures has one row that tells its status.
    """
    for attack in cell["attacks"]:
        head = (cell["digest"], attack["name"], attack["round"], attack["rung"], attack["status"])
        empty = True
        for victim in attack["victims"]:
            for metric, values in victim.get("figures", {}).items():
                for example, value in enumerate(values if isinstance(values, list) else [values]):
                    empty = False
                    yield (*head, victim["client"], example, metric, value)
        if empty:
            yield (*head, None, None, None, None)
    for attack in cell.get("inferences", ()):
        head = (cell["digest"], attack["name"], attack["round"], attack["rung"], attack["status"])
        for metric, figure in (attack["figures"] or {None: {}}).items():
            yield (*head, None, None, metric, figure.get("value"))
