"""Show a training on stderr: bars on a terminal, and one line per evaluation elsewhere."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import datasets
import transformers
from transformers.trainer_callback import ProgressCallback

from encort.runtime.common.checkpoints.quiet import quiet
from encort.runtime.common.output.terminal import echo


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence transformers, and the bars of datasets where no terminal shows them."""
    bars = contextlib.nullcontext() if sys.stderr.isatty() else without_bars()
    with quiet(transformers), bars, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"transformers\.")  # such as about the clock of the file system
        yield


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Hide the bars of datasets."""
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def progress_callback() -> Any:
    """Return the callback that shows the progress of a trainer."""
    return _Bar if sys.stderr.isatty() else _Lines


class _Bar(ProgressCallback):  # type: ignore[misc] # untyped
    """Shows one progress bar for the whole training, with the metric of the last evaluation."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        value = (logs or {}).get(f"eval_{args.metric_for_best_model}")
        if self.training_bar is not None and value is not None:
            self.training_bar.set_postfix({args.metric_for_best_model: f"{value:.3f}"})

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show no bar for an evaluation."""


class _Lines(transformers.TrainerCallback):  # type: ignore[misc] # untyped
    """Prints the metric of every evaluation."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        value = (metrics or {}).get(f"eval_{args.metric_for_best_model}")
        if state.is_world_process_zero and value is not None:
            echo(f"step {state.global_step} of {state.max_steps}: {args.metric_for_best_model} {value:.3f}", err=True)
