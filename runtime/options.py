"""How a bundle is loaded: what `load` takes, checked; and the checks that other options share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from encort.runtime.bundle.manifest import Device, Precision
from encort.runtime.common.checks import check_whole, choice
from encort.runtime.common.errors import InputError
from encort.runtime.engine.session import PROVIDERS

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a bundle is loaded; see `load`."""

    device: str = AUTO
    precision: str = AUTO
    threads: int | None = None
    spinning: bool = False
    provider: str | None = None
    provider_options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.device != AUTO:
            _device(self.device)
        if self.precision != AUTO:
            choice(Precision, "precision", self.precision, beside=AUTO)
        if self.threads is not None:
            check_whole("threads", self.threads, least=1)
        if self.is_foreign and not (self.device in (AUTO, Device.CPU) and self.precision in (AUTO, Precision.FP32)):
            raise InputError(f"{self.provider} runs the portable graph: leave device and precision out")

    @property
    def chosen_device(self) -> Device:
        return Device.CPU if self.device == AUTO else _device(self.device)[0]

    @property
    def device_numbers(self) -> Sequence[int]:
        """Of the GPUs to use; the first where none is named."""
        return () if self.chosen_device is Device.CPU else _device(self.device)[1]

    @property
    def chosen_precision(self) -> Precision | None:
        """None where the exporter's first choice is taken."""
        return None if self.precision == AUTO else Precision(self.precision)

    @property
    def chosen_provider(self) -> str:
        """ONNX Runtime's name of it."""
        return self.provider or PROVIDERS[self.chosen_device]

    @property
    def is_foreign(self) -> bool:
        """Whether the provider is another than the one that the device's graphs were made for."""
        return self.provider not in (None, PROVIDERS[self.chosen_device])


def _device(name: object) -> tuple[Device, Sequence[int]]:
    """Kind and numbers of what `"cpu"`, `"cuda"`, `"cuda:1"` or `"cuda:0,1"` names.

    Raises:
        InputError: It names nothing.
    """
    kind, colon, rest = name.partition(":") if isinstance(name, str) else (name, "", "")
    device = choice(Device, "device", cast("str", kind), beside=AUTO)
    numbers = rest.split(",") if colon else ["0"]
    if (colon and device is Device.CPU) or not all(number.isdecimal() for number in numbers):
        raise InputError(f'device must be "cpu", "cuda", or name GPUs as "cuda:1" or "cuda:0,1"; got {name!r}')
    return device, [int(number) for number in dict.fromkeys(numbers)]
