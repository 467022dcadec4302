"""Options of `load`, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from encort.runtime.bundle.manifest import Device, Precision
from encort.runtime.common.checks import check_whole, choice
from encort.runtime.common.errors import InputError
from encort.runtime.engine.session import PROVIDERS

AUTO: Final = "auto"
MOST_THREADS: Final = 1024
"""More threads than any machine has cores for. Each takes memory, and a process may have a limited number."""

PrecisionName = Literal["auto", "fp32", "fp16", "bf16", "int8"]
"""Precisions that `load` takes; `"auto"` is the exporter's first choice."""

DeviceName = Literal[
    "auto", "cpu", "cuda", "cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:4", "cuda:5", "cuda:6", "cuda:7"
]
"""Devices that `load` takes; `"auto"` is the CPU and `"cuda"` the first GPU. Higher GPU numbers work too."""


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Options of `load`; see there."""

    device: DeviceName | Sequence[DeviceName] = AUTO
    precision: PrecisionName | Precision = AUTO
    threads: int | None = None
    max_length: int | None = None
    spinning: bool = False
    provider: str | None = None
    provider_options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device_kind  # noqa: B018 - parses the device, and so checks it
        if self.precision != AUTO:
            choice(Precision, "precision", self.precision, beside=AUTO)
        if self.threads is not None:
            threads = check_whole("threads", self.threads, least=1, most=MOST_THREADS)
            object.__setattr__(self, "threads", threads)  # an int, whatever integer it was
        if self.is_portable and not (self.device in (AUTO, "cpu") and self.precision in (AUTO, "fp32")):
            raise InputError(f"{self.provider} runs the portable graph: leave device and precision out")

    @property
    def device_kind(self) -> Device:
        """Kind of device that runs the graph."""
        return _parse_devices(self.device)[0]

    @property
    def gpu_numbers(self) -> Sequence[int]:
        """Numbers of the GPUs to use; empty on the CPU."""
        return _parse_devices(self.device)[1]

    @property
    def wanted_precision(self) -> Precision | None:
        """Precision that was asked for; None for the exporter's first choice."""
        return None if self.precision == AUTO else Precision(self.precision)

    @property
    def execution_provider(self) -> str:
        """ONNX Runtime's name of the execution provider."""
        return self.provider or PROVIDERS[self.device_kind]

    @property
    def is_portable(self) -> bool:
        """Whether the provider is not the device's own one, so that only the portable graph fits it."""
        return self.provider not in (None, PROVIDERS[self.device_kind])


def _parse_devices(device: object) -> tuple[Device, list[int]]:
    """Return kind and GPU numbers of `"cpu"`, `"cuda"`, `"cuda:1"`, `"cuda:0,1"` or `["cuda:0", "cuda:1"]`.

    Raises:
        InputError: It names no device.
    """
    names = list(device) if isinstance(device, Sequence) and not isinstance(device, str) else [device]
    kinds, numbers = set[Device](), dict[int, None]()
    for name in names:
        text = str(name)
        kind, colon, rest = text.partition(":")
        kinds.add(Device.CPU if kind == AUTO else choice(Device, "device", kind, beside=AUTO))
        parts = rest.split(",") if colon else ["0"]
        if (colon and kind != Device.CUDA) or not all(part.isdecimal() for part in parts):
            raise InputError(f'device must be "cpu", "cuda", or name GPUs as "cuda:1" or "cuda:0,1"; got {name!r}')
        numbers |= dict.fromkeys(map(int, parts))
    if len(kinds) != 1 or (kinds == {Device.CPU} and len(names) > 1):
        raise InputError(f'several devices must be GPUs, as ["cuda:0", "cuda:1"]; got {device!r}')
    (kind_of_all,) = kinds
    return kind_of_all, list(numbers) if kind_of_all is Device.CUDA else []
