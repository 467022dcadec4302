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
    """Print encort's warnings on stderr, as `echo` prints. Calling it twice is fine."""
    logger = logging.getLogger("encort")
    if not any(isinstance(handler, _EchoHandler) for handler in logger.handlers):
        logger.addHandler(_EchoHandler())


class _EchoHandler(logging.Handler):
    """Prints messages on what is the stderr of the process at that time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        try:
            echo(self.format(record), err=True)
        except Exception:  # as the handlers of the library do
            self.handleError(record)
