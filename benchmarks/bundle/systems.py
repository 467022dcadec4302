"""Open what `encort bench` compares: every precision of the bundle that runs here, and eager PyTorch."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from encort.runtime.bundle.bundle import Bundle, runs_here
from encort.runtime.bundle.manifest import PORTABLE, Precision
from encort.runtime.model import Model, load
from encort.runtime.options import DeviceName, PrecisionName
from encort.runtime.text.token_batch import Text

EAGER = "eager PyTorch"

Run = Callable[[Sequence[Text]], object]


@dataclass(frozen=True, kw_only=True)
class Systems:
    """Open systems, on one device and with the same threads.

    Attributes:
        folder: Folder of the bundle.
        device: Device that the user asked for.
        threads: Cores of every system.
        checkpoint: Checkpoint of eager PyTorch; None is the one that was exported.
        model: Model of the precision that the user asked for.
        models: This model and those of all other precisions, by name.
        runs: Functions that run texts, by the name of the system; eager PyTorch comes last.
    """

    folder: Path
    device: DeviceName
    threads: int
    checkpoint: str | None
    model: Model
    models: dict[str, Model]
    runs: dict[str, Run]

    @property
    def main(self) -> str:
        """Name of the precision that the user asked for."""
        return system_name(self.model)


def open_systems(
    stack: ExitStack,
    bundle: Bundle,
    *,
    device: DeviceName,
    precision: PrecisionName | Precision,
    threads: int,
    eager: bool,
    checkpoint: str | None,
    show: Callable[[str], None],
) -> Systems:
    """Open all systems, and close the models with the stack.

    Args:
        stack: Closes the models.
        bundle: Bundle to open.
        device: See `encort.load`.
        precision: Precision of `Systems.model`.
        threads: Cores of every system.
        eager: Whether to open eager PyTorch too.
        checkpoint: Its checkpoint; None takes the one that was exported.
        show: Called with the name of each system before it is opened.

    Raises:
        EncortError: The bundle cannot be loaded, see `encort.load`.
        CheckpointError: The checkpoint cannot be loaded.
    """
    folder = bundle.folder
    show("encort")
    model = stack.enter_context(load(folder, device=device, precision=precision, threads=threads))
    others = dict.fromkeys(
        variant.precision
        for variant in bundle.manifest.variants
        if variant.device is model.variant.device and variant.name != PORTABLE and runs_here(variant)
    )
    others.pop(model.variant.precision, None)
    models = [model]
    for other in others:
        show(f"encort {other}")
        models.append(stack.enter_context(load(folder, device=device, precision=other, threads=threads)))
    for loaded in models:
        loaded.warm_up()
    by_name = {system_name(loaded): loaded for loaded in models}
    runs: dict[str, Run] = {name: loaded.predict for name, loaded in by_name.items()}
    if eager:
        show(EAGER)
        from encort.benchmarks.bundle.torch_baseline import Eager

        runs[EAGER] = Eager(bundle, checkpoint, threads=threads)
    return Systems(
        folder=folder,
        device=device,
        threads=threads,
        checkpoint=checkpoint,
        model=model,
        models=by_name,
        runs=runs,
    )


def system_name(model: Model) -> str:
    """Return the name of a precision of the bundle, such as `encort int8`."""
    return f"encort {model.variant.precision}"
