"""Write the sentence embedding: poolings of the hidden states, modules on the pooled vector, and a normalization.

The formulas are those of sentence-transformers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import Dense, LayerNorm, SentenceModule
from encort.export.graph.layouts import AttentionLayout
from encort.export.graph.operators import linear, normalize
from encort.export.graph.standard import gelu, silu
from encort.runtime.bundle.manifest import PROMPT_LENGTH, SENTENCE_EMBEDDING, Embedding, Pooling
from encort.runtime.common.errors import CheckpointError


@dataclass(frozen=True)
class Encoded:
    """Results of one encoder.

    Attributes:
        hidden: Hidden states, `(*axes, hidden)`, with the axes of the layout.
        pooled: Output of the pooler, `(batch, hidden)`; None for an encoder without a pooler.
        layout: Layout of the tokens.
    """

    hidden: ir.Value
    pooled: ir.Value | None
    layout: AttentionLayout


def sentence_output(
    builder: GraphBuilder, encoded: Encoded, embedding: Embedding, modules: Sequence[SentenceModule], hidden: int
) -> None:
    """Declare the sentence embedding, `(batch, size)`, as an output of the graph.

    Args:
        builder: Builder of the graph.
        encoded: Results of the encoder.
        embedding: Poolings and normalization.
        modules: Modules between them.
        hidden: Width of the hidden states.

    Raises:
        CheckpointError: The embedding needs a pooler that the checkpoint lacks.
    """
    tokens = _PooledTokens.of(builder, encoded, include_prompt=embedding.include_prompt)
    vectors = [_POOLINGS[pooling](tokens) for pooling in embedding.pooling]
    sentence = builder.op("Concat", *vectors, axis=-1) if len(vectors) > 1 else vectors[0]
    for module in modules:
        sentence = apply_module(builder, module, sentence)
    sentence = unit_vectors(builder, sentence) if embedding.normalize else sentence
    sizes = [module.linear.width for module in modules if isinstance(module, Dense)]
    builder.output(sentence, SENTENCE_EMBEDDING, ("batch", [hidden * len(vectors), *sizes][-1]))


def mean_of_tokens(builder: GraphBuilder, encoded: Encoded) -> ir.Value:
    """Write the mean of each text's tokens, `(batch, hidden)`."""
    return _mean(_PooledTokens.of(builder, encoded, include_prompt=True))


def apply_module(builder: GraphBuilder, module: SentenceModule, x: ir.Value) -> ir.Value:
    """Write a module on vectors `(batch, size)`."""
    if isinstance(module, LayerNorm):
        return normalize(builder, module, x)
    if not isinstance(module, Dense):
        return unit_vectors(builder, x)
    result = ACTIVATIONS[module.activation](builder, linear(builder, module.linear, x))
    if not module.adds_input:
        return result
    return builder.op("Add", result, x if module.projection is None else linear(builder, module.projection, x))


def unit_vectors(builder: GraphBuilder, x: ir.Value) -> ir.Value:
    """Write `x / max(|x|, 1e-12)`, as in `torch.nn.functional.normalize`."""
    # CUDA has no kernel for LpNormalization.
    norm = builder.op("ReduceL2", x, builder.integers(-1), keepdims=1)
    return builder.op("Div", x, builder.op("Max", norm, builder.weight("smallest_norm", np.array([1e-12], np.float32))))


@dataclass(frozen=True)
class _PooledTokens:
    """Tokens of the texts, and which of them are pooled.

    Attributes:
        builder: Builder of the graph.
        encoded: Results of the encoder.
        mask: `(batch, sequence)` float32, 1 on tokens that are pooled; None: every text is pooled whole, and none has
            padding.
        is_whole: Whether all tokens of every text are pooled.
    """

    builder: GraphBuilder
    encoded: Encoded
    mask: ir.Value | None
    is_whole: bool

    @classmethod
    def of(cls, builder: GraphBuilder, encoded: Encoded, *, include_prompt: bool) -> "_PooledTokens":
        """Return the tokens of the texts. Without their prompts, the graph gets one more input."""
        mask = encoded.layout.mask
        if include_prompt:
            return cls(builder, encoded, mask, is_whole=True)
        # Libraries that know no such input leave it out, and pool the prompt.
        default = np.zeros(1, np.int64) if builder.is_standard else None
        lengths = builder.input(PROMPT_LENGTH, ir.DataType.INT64, ("batch",), default=default)
        lengths = builder.op("Unsqueeze", lengths, builder.integers(1))
        is_text = builder.op("GreaterOrEqual", encoded.layout.numbers, lengths)
        behind = builder.op("Cast", is_text, to=ir.DataType.FLOAT)
        return cls(builder, encoded, behind if mask is None else builder.op("Mul", mask, behind), is_whole=False)

    @property
    def hidden(self) -> ir.Value:
        """Hidden states, `(batch, sequence, hidden)`."""
        return self.encoded.layout.padded(self.encoded.hidden)

    @property
    def columns(self) -> ir.Value:
        """Positions 0, 1, 2 ..., `(sequence,)` float32."""
        return self.builder.op("Cast", self.encoded.layout.columns, to=ir.DataType.FLOAT)

    def pooled_mask(self) -> ir.Value:
        """Return `mask`, made of ones if there is none."""
        if self.mask is not None:
            return self.mask
        shape = self.builder.op("Shape", self.hidden, start=0, end=2)
        return self.builder.op("Expand", self.builder.weight("one", np.array(1, np.float32)), shape)

    def weighted_sum(self, weights: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return the weighted sum of the tokens, `(batch, hidden)`, and the sum of the weights, `(batch, 1)`.

        Args:
            weights: `(batch, sequence)` float32, 0 on tokens that are not pooled.
        """
        builder, axis = self.builder, self.builder.integers(1)
        column = builder.op("Unsqueeze", weights, builder.integers(2))
        total = builder.op("ReduceSum", builder.op("Mul", self.hidden, column), axis, keepdims=0)
        count = builder.op("ReduceSum", column, axis, keepdims=0)
        # A prompt may fill the whole text, and a row may be padding only.
        return total, builder.op("Max", count, builder.weight("smallest_count", np.array(1e-9, np.float32)))


def _mean(tokens: _PooledTokens) -> ir.Value:
    if tokens.mask is None:
        return tokens.builder.op("ReduceMean", tokens.hidden, tokens.builder.integers(1), keepdims=0)
    return tokens.builder.op("Div", *tokens.weighted_sum(tokens.mask))


def _mean_sqrt_len(tokens: _PooledTokens) -> ir.Value:
    total, count = tokens.weighted_sum(tokens.pooled_mask())
    return tokens.builder.op("Div", total, tokens.builder.op("Sqrt", count))


def _weighted_mean(tokens: _PooledTokens) -> ir.Value:
    builder = tokens.builder
    numbers = builder.op("Cast", tokens.encoded.layout.numbers, to=ir.DataType.FLOAT)
    positions = builder.op("Add", numbers, builder.weight("one", np.array(1, np.float32)))
    return builder.op("Div", *tokens.weighted_sum(builder.op("Mul", tokens.pooled_mask(), positions)))


def _max(tokens: _PooledTokens) -> ir.Value:
    builder, hidden = tokens.builder, tokens.hidden
    if tokens.mask is not None:
        column = builder.op("Unsqueeze", tokens.mask, builder.integers(2))
        # Finite for a row without tokens, as in sentence-transformers 5; version 6 gives minus infinity there.
        lowest = builder.weight("lowest", np.array(-1e9, np.float32))
        hidden = builder.op("Where", builder.op("Cast", column, to=ir.DataType.BOOL), hidden, lowest)
    return builder.op("ReduceMax", hidden, builder.integers(1), keepdims=0)


def _cls(tokens: _PooledTokens) -> ir.Value:
    """Return the first token; without prompts, the first one behind the prompt, if there is any."""
    builder, encoded = tokens.builder, tokens.encoded
    if tokens.is_whole:
        return encoded.layout.first(encoded.hidden)
    # CUDA has no kernel for ArgMax that takes the last of equal values, so neither end is found by it.
    beyond = builder.weight("beyond", np.array(np.inf, np.float32))
    is_pooled = builder.op("Cast", tokens.pooled_mask(), to=ir.DataType.BOOL)
    columns = builder.op("Where", is_pooled, tokens.columns, beyond)
    first = builder.op("ReduceMin", columns, builder.integers(1), keepdims=0)
    is_any = builder.op("Less", first, beyond)
    first = builder.op("Where", is_any, first, builder.weight("zero", np.array(0, np.float32)))
    return encoded.layout.token(encoded.hidden, builder.op("Cast", first, to=ir.DataType.INT64))


def _last_token(tokens: _PooledTokens) -> ir.Value:
    """Return the last token; zeros if a prompt fills the whole text."""
    builder, encoded, axis = tokens.builder, tokens.encoded, tokens.builder.integers(1)
    mask = tokens.pooled_mask()
    last = builder.op("ReduceMax", builder.op("Mul", mask, tokens.columns), axis, keepdims=0)
    vector = encoded.layout.token(encoded.hidden, builder.op("Cast", last, to=ir.DataType.INT64))
    return vector if tokens.is_whole else builder.op("Mul", vector, builder.op("ReduceMax", mask, axis, keepdims=1))


def _pooler(tokens: _PooledTokens) -> ir.Value:
    if tokens.encoded.pooled is None:
        raise CheckpointError("the checkpoint has no pooler; pool by mean or cls (--pooling)")
    return tokens.encoded.pooled


_POOLINGS: dict[Pooling, Callable[[_PooledTokens], ir.Value]] = {
    Pooling.MEAN: _mean,
    Pooling.CLS: _cls,
    Pooling.POOLER: _pooler,
    Pooling.MAX: _max,
    Pooling.MEAN_SQRT_LEN: _mean_sqrt_len,
    Pooling.WEIGHTED_MEAN: _weighted_mean,
    Pooling.LAST_TOKEN: _last_token,
}


ACTIVATIONS: dict[str, Callable[[GraphBuilder, ir.Value], ir.Value]] = {
    "Identity": lambda _, x: x,
    "Tanh": lambda builder, x: builder.op("Tanh", x),
    "ReLU": lambda builder, x: builder.op("Relu", x),
    "GELU": gelu,
    "Sigmoid": lambda builder, x: builder.op("Sigmoid", x),
    "SiLU": silu,
    "LeakyReLU": lambda builder, x: builder.op("LeakyRelu", x, alpha=0.01),
    "ELU": lambda builder, x: builder.op("Elu", x),
    "Softplus": lambda builder, x: builder.op("Softplus", x),
}
"""Activations of `Dense`, by the names of their classes in `torch.nn`."""
