"""Standard input, output and error of the command line, also where the caller closed them."""

import os
import sys
from typing import TextIO

from encort.runtime.common.errors import InputError


def prepare_streams() -> None:
    """Give every closed stream a place, and write UTF-8 in every locale.

    A file that is opened while a standard stream is closed gets its number, and would then receive what libraries
    print there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = _writable(sys.stdout)
    sys.stderr = _writable(sys.stderr)


def check_stdout() -> None:
    """Refuse to work for a result that nobody can read.

    Raises:
        InputError: Standard output was closed when the process started.
    """
    if sys.__stdout__ is None:
        raise InputError("standard output is closed, where the result goes; redirect it, or name a file with --output")


def open_stdin() -> TextIO:
    """Return standard input.

    Raises:
        InputError: It is closed, or a terminal where nobody would know what to type.
    """
    if sys.stdin is None:
        raise InputError("no texts, and standard input is closed; give texts as arguments or with --input FILE")
    if sys.stdin.isatty():
        raise InputError("no texts: give them as arguments, with --input FILE, or on standard input")
    return sys.stdin


def decode_argument(text: str) -> str:
    """Return an argument that the locale could not decode, such as `LC_ALL=C`, as the UTF-8 that it is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text).decode(errors="surrogateescape")
    return text


def _writable(stream: TextIO | None) -> TextIO:
    """Return the stream with UTF-8, or one that drops everything if it is closed."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - open until the process ends
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="backslashreplace")
    return stream
