"""Silence what transformers writes on stderr while it loads, trains and saves weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet(library: Any) -> Iterator[None]:
    """Show neither the progress of files that are read or written in a moment, nor warnings about weights.

    encort checks the weights itself.

    Args:
        library: The module `transformers`.
    """
    logging = library.utils.logging
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if has_bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()
