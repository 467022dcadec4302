"""`OpenedBundle`: a bundle that is opened again on another device, or with another limit of tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from encort.integrations.sentence_transformers.opening import bundle_name, device_names
from encort.integrations.sentence_transformers.tensors import torch_for
from encort.runtime.bundle.manifest import Device
from encort.runtime.common.errors import InputError
from encort.runtime.model import Model, load

if TYPE_CHECKING:
    import torch

NO_CAST = 'the precision is chosen at export; encort.load(folder, precision="int8") opens another one'


class OpenedBundle:
    """A bundle with a device and a limit of tokens, which a script may change.

    Attributes:
        encort_model: The model of encort behind it.
    """

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
            self.encort_model = model
        else:
            self._name = bundle_name(model, revision=revision, organization=organization)
            self.encort_model = load(self._name, **self._options)

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
        options = self._options | changes
        if options == self._options:
            return
        if self._name is None:
            raise InputError(f"an open model keeps its {next(iter(changes))}: give it to encort.load")
        before, self.encort_model = self.encort_model, load(self._name, **options)
        self._options = options
        before.close()
