"""Printing and logging of the command line."""

import logging

import click

from encort.runtime.common.output.escaping import printable


def printable_lines(text: str) -> str:
    """Return a text whose lines are as `printable` shows them."""
    return "\n".join(map(printable, text.split("\n")))


def echo(text: str, *, err: bool = False) -> None:
    """Print lines on stdout or stderr; only their ends can steer the terminal."""
    click.echo(printable_lines(text), err=err)


def log_to_stderr() -> None:
    """Print encort's warnings on stderr, as `echo` prints."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter())
    logging.getLogger("encort").addHandler(handler)


class _PrintableFormatter(logging.Formatter):
    """Formats messages as lines that cannot steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message of a record."""
        return printable_lines(super().format(record))
