"""Read an encoder's weights by the names of its table."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encort.export.graph.architectures.table import Architecture, DisentangledNames, Name, RotaryAngles
from encort.export.graph.description import (
    Attention,
    AttentionHeads,
    Disentangled,
    DistanceBias,
    DistanceEmbeddings,
    Embeddings,
    Encoder,
    FeedForward,
    Layer,
    LayerNorm,
    Linear,
    Norm,
    Part,
    PositionScheme,
    RMSNorm,
    Rotary,
)
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checkpoints.positions import padding_position
from encort.runtime.cuda.packing import COLUMN_MULTIPLE


class EncoderReader:
    """Reads an encoder's weights by the names of its architecture."""

    def __init__(self, names: Architecture, weights: Mapping[str, FloatArray], prefix: str, config: Any) -> None:
        """Read weights whose names begin with the prefix, and settings from the configuration of transformers."""
        self._names, self._weights, self._prefix, self._config = names, weights, prefix, config
        self._rotary = functools.cache(self._read_rotary)  # layers with the same angles share them

    def encoder(self) -> Encoder:
        """Return the description of the encoder."""
        names = self._names
        return Encoder(
            embeddings=self._embeddings,
            layers=self._layers(),
            final_norm=None if names.final_norm is None else self._norm(names.final_norm),
            pooler=self._optional_linear(names.pooler),
            max_length=self._max_length,
        )

    @functools.cached_property
    def _embeddings(self) -> Embeddings:
        names, padding_id = self._names, padding_position(self._config)
        words = self._table(names.words)
        positions = self._optional_table(names.positions)
        if positions is not None and padding_id is not None:
            positions = positions[padding_id:]
        types = self._optional_table(names.types)
        if types is not None and len(types) == 1:
            # Every token adds the same row, so another table can hold it.
            if positions is None:
                words, types = words + types, None
            else:
                positions, types = positions + types, None
        return Embeddings(
            name=f"{self._prefix}embeddings",
            words=words,
            positions=positions,
            padding_id=padding_id,
            types=types,
            norm=None if names.embedding_norm is None else self._norm(names.embedding_norm),
            projection=self._optional_linear(names.projection),
        )

    @functools.cached_property
    def _max_length(self) -> int:
        positions = self._embeddings.positions
        if positions is None:
            return int(self._config.max_position_embeddings)
        return len(positions) - (self._embeddings.padding_id is not None)

    def _layers(self) -> tuple[Layer, ...]:
        names = self._names
        numbers = names.layer_numbers or [(index,) for index in range(self._config.num_hidden_layers)]
        prefixes = [names.layer.format(*each) for each in numbers]
        layers = {prefix: self._layer(prefixes.index(prefix), prefix) for prefix in dict.fromkeys(prefixes)}
        return tuple(layers[prefix] for prefix in prefixes)

    def _layer(self, index: int, layer: str) -> Layer:
        names = self._names
        has_attention_norm = names.has_first_norm or index > 0
        return Layer(
            attention=Attention(
                query=self._linear(names.query, layer),
                key=self._linear(names.key, layer),
                value=self._linear(names.value, layer),
                output=self._linear(names.attention_output, layer),
                heads=self._heads,
                positions=self._positions(index, layer),
                window=None if names.windows is None else names.windows[index],
            ),
            attention_norm=self._norm(layer + names.attention_norm) if has_attention_norm else None,
            feed_forward=FeedForward(
                intermediate=self._linear(names.intermediate, layer),
                gate=None if names.gate is None else self._linear(names.gate, layer),
                output=self._linear(names.output, layer),
                activation=names.activation,
            ),
            output_norm=self._norm(layer + names.output_norm),
            placement=names.placement,
        )

    @functools.cached_property
    def _heads(self) -> AttentionHeads:
        config, count = self._config, self._config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // count
        return AttentionHeads(count, size, getattr(config, "num_key_value_heads", None) or count)

    def _positions(self, index: int, layer: str) -> PositionScheme | None:
        angles, distances = self._names.rotary, self._distance_embeddings
        if self._names.disentangled is not None and distances is not None:
            return self._disentangled(self._names.disentangled, distances, layer)
        return self._distance_bias if angles is None else self._rotary(angles[index])

    def _disentangled(self, names: DisentangledNames, distances: DistanceEmbeddings, layer: str) -> Disentangled:
        return Disentangled(
            distances=distances,
            key=None if names.key is None else self._linear(names.key, layer),
            query=None if names.query is None else self._linear(names.query, layer),
            shares_projections=names.shares_projections,
        )

    @functools.cached_property
    def _distance_embeddings(self) -> DistanceEmbeddings | None:
        """The embeddings of distances, after their norm; None for an architecture without them."""
        names = self._names.disentangled
        if names is None:
            return None
        table = self._table(names.embeddings)
        if names.norm is not None:
            norm = f"{self._prefix}{names.norm}"
            weight, bias = (torch.from_numpy(self._weights[f"{norm}.{part}"]) for part in ("weight", "bias"))
            rows = torch.from_numpy(table)
            table = torch.nn.functional.layer_norm(rows, weight.shape, weight, bias, self._names.epsilon).numpy()
        return DistanceEmbeddings(name=f"{self._prefix}{names.embeddings}", embeddings=table, rows=names.rows)

    @functools.cached_property
    def _distance_bias(self) -> DistanceBias | None:
        """The bias of every distance, in the order of the distances; None for an architecture without one."""
        if self._names.distances is None:
            return None
        # Packed inputs widen their rows to a multiple of this number.
        longest = self._max_length + COLUMN_MULTIPLE - 1
        buckets = _buckets(np.arange(1 - longest, longest))
        table = self._table(self._names.distances)[buckets]
        return DistanceBias(name=f"{self._prefix}embeddings.distances", table=table)

    def _read_rotary(self, rotary: RotaryAngles) -> Rotary:
        """Return the rotation of each position, with the rounding of transformers."""
        exponents = torch.arange(0, self._heads.size, 2, dtype=torch.float32) / self._heads.size
        frequencies = 1.0 / rotary.base**exponents / rotary.factor
        angles = torch.outer(torch.arange(self._max_length, dtype=torch.float32), frequencies)
        scaling = "" if rotary.factor == 1 else f"_{rotary.factor:g}"
        name = f"{self._prefix}rotary_{rotary.base:g}{scaling}"
        return Rotary(name=name, cosines=angles.cos().numpy(), sines=angles.sin().numpy())

    def _has(self, name: str) -> bool:
        return f"{self._prefix}{name}.weight" in self._weights

    def _table(self, name: str) -> FloatArray:
        return self._weights[f"{self._prefix}{name}.weight"]

    def _optional_table(self, name: str | None) -> FloatArray | None:
        return self._table(name) if name is not None and self._has(name) else None

    def _optional_linear(self, name: str | None) -> Linear | None:
        return self._linear(name) if name is not None and self._has(name) else None

    def _linear(self, name: Name, layer: str = "") -> Linear:
        if isinstance(name, str):
            return read_linear(self._weights, self._prefix + layer + name)
        part = Part(self._prefix + layer + name.module, name.index, name.count)
        return _part(read_linear(self._weights, part.module), part)

    def _norm(self, name: str) -> Norm:
        return read_norm(self._weights, self._prefix + name, self._names)


def read_linear(weights: Mapping[str, FloatArray], name: str, prefix: str = "") -> Linear:
    """Return a linear layer; its name in the graph begins with the prefix."""
    # torch stores (out, in), the description has (in, out).
    weight = np.ascontiguousarray(weights[f"{name}.weight"].T)
    return Linear(name=prefix + name, weight=weight, bias=weights.get(f"{name}.bias"))


def read_norm(weights: Mapping[str, FloatArray], name: str, architecture: Architecture, prefix: str = "") -> Norm:
    """Return a norm; its name in the graph begins with the prefix."""
    weight, epsilon = weights[f"{name}.weight"], architecture.epsilon
    if architecture.is_rms:
        return RMSNorm(name=prefix + name, weight=weight, epsilon=epsilon)
    return LayerNorm(name=prefix + name, weight=weight, bias=weights.get(f"{name}.bias"), epsilon=epsilon)


def _part(whole: Linear, part: Part) -> Linear:
    """Return one of the equally wide layers that a module holds."""
    width = whole.width // part.count
    columns = slice(part.index * width, (part.index + 1) * width)
    return Linear(
        name=f"{part.module}.{part.index}",
        weight=np.ascontiguousarray(whole.weight[:, columns]),
        bias=None if whole.bias is None else whole.bias[columns],
        part=part,
    )


def _buckets(distances: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bucket of each distance `key - query`, as in T5 and MPNet (Raffel et al. 2020, section 2.1).

    There are 32 buckets: 0 to 15 for keys up to the query, 16 to 31 for keys after it. The first eight buckets of each
    half hold one distance each. The width of the other eight grows with the logarithm, up to a distance of 128.
    """
    half, distance = 16, np.abs(distances)
    exact = half // 2
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / math.log(128 / exact)
    logarithmic = np.minimum(exact + (ratio * (half - exact)).astype(np.int64), half - 1)
    buckets: NDArray[np.int64] = np.where(distances > 0, half, 0) + np.where(distance < exact, distance, logarithmic)
    return buckets
