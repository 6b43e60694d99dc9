"""Keep the results of a study in an append-only file of JSON lines, one per run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any, Generic, Protocol, TypeVar


class Configuration(Protocol):
    """Description of a run or a measurement, as data."""

    @property
    def key(self) -> str:
        """Hash of the configuration."""
        ...


C = TypeVar("C", bound=Configuration)
#: Dataclass of a configuration's results; its field ``run`` is the configuration.
R = TypeVar("R")


class ResultsError(Exception):
    """A file of results is damaged; the message says which line, and what to do."""


class Results(Generic[R]):
    """File of the rows of a study.

    Each row is written whole, and synced, before :meth:`append` returns. Whatever kills the process, at most the last
    line is torn; it counts as not written, and the next :meth:`append` removes it. One process
    writes at a time, see :meth:`alone`.

    Parameters
    ----------
    path : Path
        The file; it need not exist yet.
    kind : type
        Dataclass of a row.
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path = path
        self.kind = kind

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other process write rows meanwhile.

        Raises
        ------
        ResultsError
            If another one does.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            try:
                _lock(file)
            except OSError as error:
                raise ResultsError(
                    f"another process writes to {self.path}; wait for it, or end it, before you run the study again"
                ) from error
            yield

    def append(self, row: R) -> None:
        """Append a row, and sync the file."""
        content: Any = row
        line = json.dumps({"key": content.run.key, **asdict(content)}) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            self._cut_torn_line(file.fileno())
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def find(self, runs: Iterable[C]) -> dict[C, R]:
        """Return the rows of those runs that have one.

        Raises
        ------
        ResultsError
            If a line is damaged; names the file and the line.
        """
        contents = self._contents()
        return {run: self._row(run, contents[run.key]) for run in runs if run.key in contents}

    def columns(self, *names: str) -> list[tuple[Any, ...]]:
        """Return these fields of every row; ``"key"`` is one of them."""
        return [tuple({**row, "key": key}[name] for name in names) for key, row in self._contents().items()]

    def _row(self, run: Any, content: dict[str, Any]) -> R:
        kind: Any = self.kind
        return kind(**{**content, "run": run})

    def _contents(self) -> dict[str, dict[str, Any]]:
        """Read the lines of the file, by the key of their configuration."""
        kind: Any = self.kind
        columns = {field.name for field in fields(kind)}
        contents = {}
        for number, line in enumerate(self._whole_lines(), start=1):
            try:
                content = json.loads(line)
                key = content.pop("key")
            except (ValueError, KeyError, AttributeError) as error:
                raise ResultsError(f"{self.path}, line {number}, is damaged ({error}); delete that line") from error
            # rows of another version's format count as missing
            if content.keys() == columns:
                contents[key] = content
        return contents

    def _whole_lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        *whole, _ = self.path.read_bytes().split(b"\n")  # the rest after the last newline is empty or a torn line
        return whole

    def _cut_torn_line(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        whole = sum(len(line) + 1 for line in self._whole_lines())
        if whole < size:
            os.ftruncate(descriptor, whole)


def _lock(file: IO[bytes]) -> None:
    """Hold a file until it is closed or this process ends."""
    try:
        import fcntl
    except ImportError:  # on Windows, where two writers are not noticed
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
