r"""The lines of a file: each ends with `\n` or `\r\n`. All other characters are content, a lone `\r` among them."""

import codecs
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from encort.runtime.common.errors import InputError
from encort.runtime.common.folders import shorten_path

Row = Mapping[str, Any]
"""Column names to values."""

LONE_RETURN = re.compile(r"\r(?!\n)")
"""A carriage return that does not end a line."""


class Lines:
    """Iterates over the lines of a binary file as texts, with their ends.

    Bytes that are not UTF-8 become unpaired surrogates, so that a reader still finds the end of the row.
    `error` then tells that the row cannot be used. A file that begins as UTF-16 has no usable row, and raises
    `InputError` at once.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Read from a file.

        Args:
            file: Open file. A byte order mark at its start is skipped.
            name: Name of the file for messages.
        """
        self._file, self.name, self.number = iter(file), name, 0
        self._undecodable: InputError | None = None

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = next(self._file)
        self.number += 1
        if self.number == 1:
            if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise InputError(f"{self.location} is not UTF-8, but UTF-16; convert it first")
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self._undecodable = InputError(f"{self.location} is not UTF-8 ({error}); convert it first")
            return line.decode(errors="surrogateescape")

    @property
    def location(self) -> str:
        """The file and the number of the line that was read last."""
        return f"{self.name}, line {self.number}"

    def error(self) -> InputError | None:
        """Return an error that names a line which is not UTF-8, among those read since the last call."""
        error, self._undecodable = self._undecodable, None
        return error

    def check(self) -> None:
        """Raise the error, if there is one.

        Raises:
            InputError: See `error`.
        """
        if error := self.error():
            raise error


def without_end(line: str) -> str:
    r"""Return the line without its `\n` or `\r\n`."""
    return line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


def check_readable(file: Path) -> None:
    """Refuse what cannot be read. A pipe or a device, such as a process substitution of the shell, can be read once.

    Raises:
        InputError: There is no such file, or it is a folder.
    """
    try:
        is_folder = stat.S_ISDIR(file.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"there is no file {file}") from None
    except OSError as error:
        raise InputError(f"{shorten_path(file)} cannot be read: {error.strerror}") from error
    if is_folder:
        raise InputError(f"{file} is a folder; name a file in it")


@contextmanager
def open_lines(file: Path) -> Iterator[Lines]:
    """Open a file to read its lines."""
    with file.open("rb") as content:
        yield Lines(content, str(file))


def check_names(names: list[str], file: Path) -> None:
    """Refuse columns that have one name, or that old Mac line ends have joined.

    Raises:
        InputError: With these names.
    """
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise InputError(f"{file} has several columns named {', '.join(map(repr, twice))}; rename them")
    if any(map(LONE_RETURN.search, names)):
        raise InputError(
            f"{file} has carriage returns alone in its first line, as old Macs end lines; save it again with the line "
            "ends of Unix or Windows"
        )
