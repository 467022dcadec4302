r"""The lines of a file: each ends with `\n` or `\r\n`. All other characters are content, a lone `\r` among them."""

import codecs
import itertools
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from encort.runtime.common.errors import InputError
from encort.runtime.common.folders import shorten_path

UTF16 = "UTF-16; convert it first, such as with iconv"
"""End of a message about a file in UTF-16."""
_PACKED: Mapping[bytes, str] = {
    rb"\x1f\x8b": "gzip; unpack it first",
    rb"\x28\xb5\x2f\xfd": "zstd; unpack it first",
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": "bzip2; unpack it first",
    rb"\xfd7zXZ\x00": "xz; unpack it first",
    rb"PK\x03\x04": "a zip archive; unpack it first, or save a spreadsheet as .csv",
    rb"PAR1\x15": "Parquet; give it the ending .parquet",
}
"""Kinds of files that users take for texts, by patterns of first bytes that no text has.

`BZh` and `PAR1` alone may begin a text. bzip2 goes on with the mark of a block or of the end, and Parquet with the
first field of a Thrift structure.
"""
_MOST_NAMES, _LONGEST_NAME = 40, 80

Row = Mapping[str, Any]
"""Column names to values."""

LONE_RETURN = re.compile(r"\r(?!\n)")
"""A carriage return that does not end a line."""

_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
"""Characters that texts seldom have, and letters in UTF-16 often. Then the second line is read to tell."""

LONGEST_RECORD = 2**26
"""Most bytes of one record: of a line, or of the lines of a quoted cell or a sentence. Files without line ends, such as
devices, would fill the memory."""


class Lines:
    """Iterates over the lines of a binary file as texts, with their ends.

    Bytes that are not UTF-8 become unpaired surrogates, so that a reader still finds the end of the row.
    `error` then tells that the row cannot be used. A file in UTF-16 has no usable row, and raises `InputError` at its
    first or second line. So does a record of more than `LONGEST_RECORD` bytes. A line is read when it is asked for,
    because the next line of a slow pipe may take long.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Read from a file.

        Args:
            file: Open file. A byte order mark at its start is skipped.
            name: Name of the file for messages.
        """
        self._file, self.name, self.number = file, name, 0
        self._second = b""
        self._record_bytes = 0
        self._undecodable: InputError | None = None

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self._read_line()
        if not line:
            raise StopIteration
        self.number += 1
        self._record_bytes += len(line)
        if self._record_bytes > LONGEST_RECORD:
            raise InputError(
                f"{self.location}: a record has more than {LONGEST_RECORD:,} bytes, the most that is read as one; "
                "check that lines end and quotes are closed, or cut the text"
            )
        if b"\0" in line:
            self._undecodable = InputError(
                f"{self.location} has a byte 0, which texts do not have; remove it, or convert the file to UTF-8"
            )
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self._undecodable = InputError(f"{self.location} is not UTF-8 ({error}); convert it first")
            return line.decode(errors="surrogateescape")

    def _read_line(self) -> bytes:
        """Return the next line; nothing at the end. The first two lines show whether the file is UTF-16."""
        line = self._second or self._file.readline(LONGEST_RECORD + 1)
        self._second = b""
        if self.number == 0:
            check_text(line, self.name)
            if _CONTROL.search(line):
                self._second = self._file.readline(LONGEST_RECORD + 1)
        if self.number < 2 and (is_utf16(line) or is_utf16(self._second)):
            raise InputError(f"{self.name}, line 1 is not UTF-8, but {UTF16}")
        return line.removeprefix(codecs.BOM_UTF8) if self.number == 0 else line

    @property
    def location(self) -> str:
        """The file and the number of the line that was read last."""
        return f"{self.name}, line {self.number}"

    def error(self) -> InputError | None:
        """End a record, and return an error that names one of its lines which is not UTF-8."""
        self.end_record()
        error, self._undecodable = self._undecodable, None
        return error

    def end_record(self) -> None:
        """Count the bytes of the next record from here."""
        self._record_bytes = 0

    def check(self) -> None:
        """Refuse a line that is not UTF-8, among those of the record so far.

        Raises:
            InputError: See `error`.
        """
        if self._undecodable is not None:
            raise self._undecodable


def is_utf16(content: bytes) -> bool:
    """Return whether the first or second line of a file, or the beginning of JSON, is UTF-16 or UTF-32.

    Such files may begin with a byte order mark. Their characters below 256 have a byte 0, the line ends among them.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    ends = content.startswith(b"\0") or content.endswith(b"\0\n")
    return b"\0" in content and (ends or 3 * content.count(0) >= len(content))


def check_text(beginning: bytes, name: str) -> None:
    """Refuse a packed file.

    Raises:
        InputError: With the kind of the file.
    """
    kind = next((kind for pattern, kind in _PACKED.items() if re.match(pattern, beginning)), None)
    if kind is not None:
        raise InputError(f"{name} is no text, but {kind}")


def list_names(names: Iterable[object]) -> str:
    """Return the names of columns for a message; of very many, or very long ones, only the beginning."""
    shown = [str(name) for name in itertools.islice(names, _MOST_NAMES + 1)]
    parts = [name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…" for name in shown[:_MOST_NAMES]]
    return ", ".join([*parts, *(["…"] if len(shown) > _MOST_NAMES else [])])


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
        raise InputError(f"{file} has several columns named {list_names(map(repr, twice))}; rename them")
    if any(map(LONE_RETURN.search, names)):
        raise InputError(
            f"{file} has carriage returns alone in its first line, as old Macs end lines; save it again with the line "
            "ends of Unix or Windows"
        )
