"""Silence what transformers writes on stderr while it loads and saves weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_bars(library: Any) -> Iterator[None]:
    """Show no progress of files that are read or written in a moment.

    Args:
        library: The module `transformers`.
    """
    logging = library.utils.logging
    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


@contextmanager
def quiet(library: Any) -> Iterator[None]:
    """Show neither progress nor warnings about weights, which encort checks itself.

    Args:
        library: The module `transformers`.
    """
    logging = library.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with without_bars(library):
            yield
    finally:
        logging.set_verbosity(level)
