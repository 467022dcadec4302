"""Result columns for datasets of Ray Data.

An actor opens the bundle once and uses as many threads as Ray gives it cores. Ray runs the blocks of a killed actor or
node again on another one.
"""

from collections.abc import Mapping
from typing import Any

import ray
from ray.data import ActorPoolStrategy, Dataset

from encort.integrations import arrow
from encort.integrations.lazy_model import BundleOrModel
from encort.integrations.threads import with_threads

_BATCH_ROWS = 4096
"""Rows per call: enough to find rows of equal length."""


class Embed(arrow.Embed):
    """`encort.integrations.arrow.Embed` as an actor of `Dataset.map_batches(..., batch_format="pyarrow")`."""

    def __init__(self, bundle: BundleOrModel, **options: Any) -> None:
        """Open the bundle; see `encort.integrations.arrow.Embed` for the options."""
        super().__init__(bundle, **with_threads(options, assigned_cpus))
        self.open()


class Classify(arrow.Classify):
    """`encort.integrations.arrow.Classify` as an actor."""

    def __init__(self, bundle: BundleOrModel, **options: Any) -> None:
        """Open the bundle; see `encort.integrations.arrow.Classify` for the options."""
        super().__init__(bundle, **with_threads(options, assigned_cpus))
        self.open()


class Score(arrow.Score):
    """`encort.integrations.arrow.Score` as an actor."""

    def __init__(self, bundle: BundleOrModel, **options: Any) -> None:
        """Open the bundle; see `encort.integrations.arrow.Score` for the options."""
        super().__init__(bundle, **with_threads(options, assigned_cpus))
        self.open()


class Tag(arrow.Tag):
    """`encort.integrations.arrow.Tag` as an actor."""

    def __init__(self, bundle: BundleOrModel, **options: Any) -> None:
        """Open the bundle; see `encort.integrations.arrow.Tag` for the options."""
        super().__init__(bundle, **with_threads(options, assigned_cpus))
        self.open()


def embed(dataset: Dataset, bundle: str, **options: Any) -> Dataset:
    """Return a dataset with embeddings; see `run`."""
    return run(Embed, dataset, bundle, **options)


def run(
    task: type[arrow.TableTask],
    dataset: Dataset,
    bundle: str,
    *,
    actors: int | tuple[int, int] = 1,
    num_cpus: float = 1,
    batch_rows: int = _BATCH_ROWS,
    ray_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Dataset:
    """Return a dataset with the result columns of a task.

    Args:
        task: `Embed`, `Classify`, `Score` or `Tag` of this module.
        dataset: Dataset with a column of texts.
        bundle: Folder that all nodes see, URL in an object store, or name on the hub.
        actors: Number of actors, or the fewest and the most of them.
        num_cpus: Cores, and so threads, of each actor.
        batch_rows: Rows per call.
        ray_options: Other options of `Dataset.map_batches`, such as `{"num_gpus": 1}`.
        options: Options of the task.
    """
    sizes = {"size": actors} if isinstance(actors, int) else {"min_size": actors[0], "max_size": actors[1]}
    return dataset.map_batches(
        task,
        fn_constructor_kwargs={"bundle": bundle, **options},
        compute=ActorPoolStrategy(**sizes),
        batch_format="pyarrow",
        batch_size=batch_rows,
        num_cpus=num_cpus,
        **(ray_options or {}),
    )


def assigned_cpus() -> float | None:
    """Return the cores of the actor that this runs in; None outside of one."""
    if not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return None
    cpus: float | None = ray.get_runtime_context().get_assigned_resources().get("CPU")
    return cpus
