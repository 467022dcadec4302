"""The log of a job: what it is, and which parts are finished. One process at a time writes it."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from encort.runtime.common.errors import InputError, OutputExistsError
from encort.runtime.common.output.escaping import dump_json
from encort.runtime.common.temporary import hold_lock

LOG_FILE = "_encort_job.jsonl"
"""Name of the log. Engines leave out files whose name begins with an underscore."""


@dataclass(frozen=True, kw_only=True)
class FinishedPart:
    """A part of the output that is complete.

    Attributes:
        rows: Rows of the input.
        written: Rows of the output, which lacks those that are left out.
        errors: Rows that cannot be used.
        tokens: Tokens that the model read.
    """

    rows: int
    written: int
    errors: int
    tokens: int


class JobLog:
    """The first line describes the job, and each line after it a finished part.

    A line is written after its part. A part whose line is missing is not finished, and is written again.

    Attributes:
        parts: The finished parts.
    """

    def __init__(self, file: Path, parts: list[FinishedPart]) -> None:
        """Go on with a log; see `open`."""
        self._file, self.parts = file, parts

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, job: Mapping[str, Any], *, resume: bool) -> Iterator[Self]:
        """Open the log in the folder of an output, and hold its lock.

        Args:
            folder: Folder of the output. It is made if it does not exist.
            job: Description of the job, as JSON holds it.
            resume: Whether to go on with an earlier run of the same job.

        Raises:
            OutputExistsError: The folder has other files, another job, or an earlier run that is not resumed.
            InputError: Another process writes into the folder, or it cannot be written.
        """
        file = folder / LOG_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            is_foreign = not file.exists() and any(folder.iterdir())
        except (FileExistsError, NotADirectoryError):
            raise OutputExistsError(f"{folder} is no folder; choose another output") from None
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror}") from error
        if is_foreign:
            raise OutputExistsError(f"{folder} exists and has no {LOG_FILE}: it is no job's; choose another output")
        file.touch()
        with hold_lock(file, wait=False) as is_locked:
            if not is_locked:
                raise InputError(f"another process writes into {folder}; wait for it, or choose another output")
            yield cls(file, _read_parts(file, job, resume=resume))

    def add(self, part: FinishedPart) -> None:
        """Write that the next part is finished, and wait until the disk has it."""
        _append(self._file, asdict(part))
        self.parts.append(part)


def _append(file: Path, entry: Mapping[str, Any]) -> None:
    with file.open("ab") as log:
        log.write(f"{dump_json(entry)}\n".encode())
        log.flush()
        os.fsync(log.fileno())


def _read_parts(file: Path, job: Mapping[str, Any], *, resume: bool) -> list[FinishedPart]:
    """Return the finished parts of an earlier run; for a new job, write its description.

    Raises:
        OutputExistsError: See `JobLog.open`.
    """
    content = file.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]  # a kill may cut the last line
    if len(complete) < len(content):
        os.truncate(file, len(complete))
    try:
        earlier, *parts = [json.loads(line) for line in complete.splitlines()] or [None]
        finished = [FinishedPart(**part) for part in parts]
    except (ValueError, TypeError) as error:
        raise OutputExistsError(f"{file} is damaged: {error}; choose another output") from error
    if earlier is None:
        _append(file, job)
        return []
    if not resume:
        raise OutputExistsError(
            f"{file.parent} has {len(finished)} finished parts of an earlier run; to go on with it, pass --resume, or "
            "choose another output"
        )
    different = [name for name in job if earlier.get(name) != job[name]]
    if different:
        raise OutputExistsError(
            f"{file.parent} is the output of another job, whose {' and '.join(different)} differ; choose another output"
        )
    return finished
