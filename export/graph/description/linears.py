"""Linear layers and norms."""

from dataclasses import dataclass

from encort.runtime.common.arrays import FloatArray


@dataclass(frozen=True)
class Part:
    """Place of a linear layer in a module of the checkpoint that holds several in one matrix.

    Attributes:
        module: Name of the module.
        index: Number of the layer in the module, from 0.
        count: Number of layers in the module; all are equally wide.
    """

    module: str
    index: int
    count: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear:
    """A linear layer, `x @ weight + bias`.

    Attributes:
        name: Prefix of its weights' names in the graph.
        weight: `(in, out)`.
        bias: `(out,)`; None for a layer without a bias.
        part: Place in a larger module of the checkpoint; None if the checkpoint has a module with the layer's name.
    """

    name: str
    weight: FloatArray
    bias: FloatArray | None
    part: Part | None = None

    @property
    def module(self) -> str:
        """Name of the checkpoint's module that holds the layer."""
        return self.name if self.part is None else self.part.module

    @property
    def width(self) -> int:
        """Number of values that the layer gives for each token."""
        return int(self.weight.shape[1])


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerNorm:
    """Normalization over the last axis, to mean 0 and variance 1.

    Attributes:
        name: Prefix of its weights' names in the graph.
        weight: `(hidden,)`.
        bias: `(hidden,)`; None for a norm without a bias.
        epsilon: Added to the variance.
    """

    name: str
    weight: FloatArray
    bias: FloatArray | None
    epsilon: float


@dataclass(frozen=True, eq=False, kw_only=True)
class RMSNorm:
    """Division by the root mean square of the last axis.

    Attributes:
        name: Prefix of its weights' names in the graph.
        weight: `(hidden,)`.
        epsilon: Added to the mean square.
    """

    name: str
    weight: FloatArray
    epsilon: float


Norm = LayerNorm | RMSNorm
