"""Options of an export, checked.

This module loads neither torch nor numpy, so that `encort export --help` can list the choices at once.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from encort.runtime.bundle.cpu import VNNI, cpu_name, has_instruction_set
from encort.runtime.bundle.kernels import KERNELS
from encort.runtime.bundle.manifest import Pooling, Precision
from encort.runtime.common.checks import choice
from encort.runtime.common.errors import InputError

if TYPE_CHECKING:
    from encort.runtime.text.token_batch import Text

PoolingName = Literal["mean", "cls", "pooler", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""Poolings of token vectors to one sentence embedding."""

VariantName = Literal["fp32", "int8", "portable", "native-bf16", "native-int8", "cuda-fp16", "cuda-fp32"]
"""Variants that an export can make."""

WeightBits = Literal[7, 8]
"""Bits of int8 weights: 8 for processors with VNNI, 7 for those without."""

TaskName = Literal["fill-mask"]
"""Tasks that an export makes only if it is asked for."""

PortableFile = Literal["model.onnx", "onnx/model.onnx"]
"""Paths of the portable graph in a bundle."""


class VariantKind(StrEnum):
    """Variants that an export can make; those named `native` have the operators of encort-kernels."""

    FP32 = "fp32"
    INT8 = "int8"
    PORTABLE = "portable"
    NATIVE_BF16 = "native-bf16"
    NATIVE_INT8 = "native-int8"
    CUDA_FP16 = "cuda-fp16"
    CUDA_FP32 = "cuda-fp32"


DEFAULT_KINDS = (VariantKind.FP32, VariantKind.INT8, VariantKind.PORTABLE)
"""Kinds that are made by default. Graphs for GPUs double the size of a bundle and are useless without a GPU."""
NATIVE_KINDS = (VariantKind.NATIVE_BF16, VariantKind.NATIVE_INT8)
INT8_KINDS = (VariantKind.INT8, VariantKind.NATIVE_INT8)
CUDA_PRECISIONS = {VariantKind.CUDA_FP16: Precision.FP16, VariantKind.CUDA_FP32: Precision.FP32}


@dataclass(frozen=True, eq=False, kw_only=True)
class ExportOptions:
    """Options of `export_bundle`; see there."""

    task: TaskName | None = None
    pooling: PoolingName | None = None
    normalize: bool | None = None
    max_length: int | None = None
    variants: Collection[VariantName] | None = None
    calibration: "Sequence[Text] | None" = None
    evaluation: str | Path | None = None
    evaluation_columns: Mapping[str, str] | None = None
    evaluation_header: Sequence[str] | None = None
    max_drop: float = 0.5
    weight_bits: WeightBits | None = None
    portable_file: PortableFile = "model.onnx"
    progress: bool = False

    def __post_init__(self) -> None:
        if self.task not in (None, *get_args(TaskName)):
            raise InputError(f"task must be {' or '.join(get_args(TaskName))}, got {self.task}")
        if self.pooling is not None:
            choice(Pooling, "pooling", self.pooling)
        if self.variants is not None and not (self.variants and set(self.variants) <= set(VariantKind)):
            names = ", ".join(self.variants) or "none"
            raise InputError(f"variants must be some of {', '.join(VariantKind)}; got {names}")
        if not set(NATIVE_KINDS).isdisjoint(self.variants or ()) and not has_instruction_set(KERNELS):
            raise InputError(
                f"native variants need {KERNELS} to be verified: it is not installed, or does not know this processor "
                f"({cpu_name()}); install it with pip, or leave them out"
            )
        if self.weight_bits not in (None, 7, 8):
            raise InputError(f"weight_bits must be 7 or 8, got {self.weight_bits}")
        if self.weight_bits == 8 and not has_instruction_set(VNNI):
            raise InputError(
                f"8-bit weights need {VNNI} to be verified, and {cpu_name()} lacks it; use --weight-bits 7"
            )
        if self.portable_file not in get_args(PortableFile):
            names = " or ".join(get_args(PortableFile))
            raise InputError(f"portable_file must be {names}, got {self.portable_file}")
        if not 0 <= self.max_drop <= 100:
            raise InputError(f"max_drop must be between 0 and 100 points, got {self.max_drop}")
        if self.evaluation is None and (self.evaluation_columns or self.evaluation_header):
            raise InputError(
                "--evaluation-column and --evaluation-header are for labelled data; give it with --evaluation"
            )

    @property
    def chosen_pooling(self) -> list[Pooling] | None:
        """Pooling that was asked for; None for the checkpoint's own poolings."""
        return None if self.pooling is None else [Pooling(self.pooling)]

    @property
    def bits(self) -> int:
        """Bits of int8 weights: those that were asked for, else the best for this processor."""
        return self.weight_bits or (8 if has_instruction_set(VNNI) else 7)

    @property
    def concerns_int8(self) -> bool:
        """Whether an option was given that only int8 graphs have."""
        return bool(self.evaluation or self.calibration or self.weight_bits)

    def is_wanted(self, kind: VariantKind) -> bool:
        """Return whether the variant was asked for, or is made by default."""
        return kind in (DEFAULT_KINDS if self.variants is None else self.variants)
