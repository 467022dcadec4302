"""`OpenedBundle`: a bundle that is opened again on another device, or with another limit of tokens."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from encort.integrations.sentence_transformers.opening import bundle_name, device_names
from encort.integrations.sentence_transformers.tensors import torch_for
from encort.runtime.bundle.manifest import Device
from encort.runtime.common.errors import InputError
from encort.runtime.common.forks import new_lock
from encort.runtime.model import Model, load

if TYPE_CHECKING:
    import torch

NO_CAST = 'the precision is chosen at export; encort.load(folder, precision="int8") opens another one'


class SharedModel:
    """A model for the calls of any number of threads, which another model may replace meanwhile.

    A replaced model is closed when the last call that uses it has ended. A forked child opens its own.
    """

    def __init__(self, model: Model) -> None:
        """Share an open model."""
        self._model = model
        self._uses = Counter[Model]()
        self._lock, self._replacing = new_lock(), new_lock()
        self._process = os.getpid()

    @property
    def model(self) -> Model:
        """The model. A call that runs it takes it from `use`."""
        with self._lock:
            return self._model_of_process()

    @contextmanager
    def use(self) -> Iterator[Model]:
        """Give the model to a call, and keep it open until the call ends."""
        with self._lock:
            model = self._model_of_process()
            self._uses[model] += 1
        try:
            yield model
        finally:
            with self._lock:
                self._uses[model] -= 1
            self._close_replaced(model)

    def replace(self, load_other: Callable[[], Model | None]) -> None:
        """Put another model in place of this one. Calls at the same time take turns.

        Args:
            load_other: Returns the other model, or None for no change.
        """
        with self._replacing:
            other = load_other()
            if other is None:
                return
            with self._lock:
                before, self._model = self._model, other
            self._close_replaced(before)

    def _model_of_process(self) -> Model:
        if os.getpid() != self._process:
            self._model = load(self._model.bundle.source, **asdict(self._model.options))
            self._process = os.getpid()
        return self._model

    def _close_replaced(self, model: Model) -> None:
        with self._lock:
            is_unused = not self._uses[model]
            if is_unused:
                del self._uses[model]
            is_replaced = model is not self._model
        if is_unused and is_replaced:
            model.close()

    def __reduce__(self) -> tuple[type["SharedModel"], tuple[Model]]:
        return SharedModel, (self.model,)


class OpenedBundle:
    """A bundle with a device and a limit of tokens, which a script may change."""

    def __init__(
        self,
        model: str | Path | Model | None,
        *,
        device: object,
        max_length: int | None,
        revision: str | None,
        organization: str,
    ) -> None:
        """Open a bundle, or take an open model.

        Args:
            model: Folder of a bundle, `hf://org/name` of one on the hub, or what `encort.load` returned.
            device: Device of the bundle; None: as `encort.load`.
            max_length: Most tokens of an input; None: as many as the bundle reads.
            revision: See `bundle_name`.
            organization: See `bundle_name`.

        Raises:
            BundleError: It is no bundle, or one that cannot be used.
            InputError: An option cannot be followed.
        """
        self._options: dict[str, Any] = {"device": device_names(device), "max_length": max_length}
        self._name: str | Path | None = None
        if isinstance(model, Model):
            if (device, max_length, revision) != (None, None, None):
                raise InputError("an open model has its device, max_length and revision: give them to encort.load")
            self._shared = SharedModel(model)
        else:
            self._name = bundle_name(model, revision=revision, organization=organization)
            self._shared = SharedModel(load(self._name, **self._options))

    @property
    def encort_model(self) -> Model:
        """The model of encort behind it."""
        return self._shared.model

    @property
    def max_seq_length(self) -> int:
        """Most tokens of an input, special tokens included; longer inputs are cut. It can be made smaller."""
        return self.encort_model.manifest.max_length

    @max_seq_length.setter
    def max_seq_length(self, tokens: int) -> None:
        self._reopen(max_length=tokens)

    def get_max_seq_length(self) -> int:
        """Return `max_seq_length`."""
        return self.max_seq_length

    @property
    def device(self) -> "torch.device":
        """Device of the model."""
        torch = torch_for("the device of a model")
        names = self._options["device"]
        if self.encort_model.variant.device is Device.CPU:
            return torch.device("cpu")  # type: ignore[no-any-return]
        return torch.device(names if isinstance(names, str) else names[0])  # type: ignore[no-any-return]

    def to(self, device: object = None, dtype: object = None) -> Self:
        """Open the bundle on another device, or on several GPUs.

        Raises:
            InputError: A precision is given; or the model was open before.
            DeviceError: The device is not available.
        """
        if dtype is not None or str(device).startswith("torch."):
            raise InputError(f"the model cannot become {dtype or device}: {NO_CAST}")
        names = device_names(device)
        is_here = names == "cpu" and self.encort_model.variant.device is Device.CPU
        if device is not None and not is_here:
            self._reopen(device=names)
        return self

    def cpu(self) -> Self:
        """Open the bundle on the CPU."""
        return self.to("cpu")

    def cuda(self, device: int | None = None) -> Self:
        """Open the bundle on a GPU."""
        return self.to("cuda:0" if device is None else device)

    def eval(self) -> Self:
        """Return the model, which never trains."""
        return self

    def start_multi_process_pool(self, target_devices: Sequence[object] | None = None) -> dict[str, Any]:
        """Return a pool without processes: this process already uses all cores, or all GPUs that it was given.

        Args:
            target_devices: Devices to open the bundle on; None: those of the model.
        """
        if target_devices:
            self.to(list(target_devices))
        return {"input": None, "output": None, "processes": []}

    @staticmethod
    def stop_multi_process_pool(pool: Mapping[str, Any]) -> None:
        """Do nothing: the pool has no processes."""

    def _reopen(self, **changes: object) -> None:
        def load_changed() -> Model | None:
            options = self._options | changes
            if options == self._options:
                return None
            if self._name is None:
                raise InputError(f"an open model keeps its {next(iter(changes))}: give it to encort.load")
            model = load(self._name, **options)
            self._options = options
            return model

        self._shared.replace(load_changed)
