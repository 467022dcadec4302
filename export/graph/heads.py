"""What is computed from the hidden states: a few lines a head."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from encort.export.graph.builder import Graph
from encort.export.graph.description import Description, Encoder, HeadWeights, Linear, Reads
from encort.export.graph.encoder import (
    LinearEmitter,
    Tokens,
    activate,
    emit_float_linears,
    last_hidden_state,
    linear,
    token_inputs,
)
from encort.export.graph.layouts import AttentionLayout
from encort.runtime.bundle.manifest import (
    LAST_HIDDEN_STATE,
    POOLER_OUTPUT,
    SENTENCE_EMBEDDING,
    Embedding,
    Layout,
    Pooling,
)
from encort.runtime.common.errors import CheckpointError


@dataclass(frozen=True)
class Encoded:
    """One encoder's results.

    Attributes:
        hidden: `(*axes, hidden)`, with the axes of the arrangement.
        pooled: `(batch, hidden)`, where it has a pooler.
        arrangement: How the tokens lie.
    """

    hidden: ir.Value
    pooled: ir.Value | None
    arrangement: AttentionLayout


def author(
    model: Description, layout: Layout, *, embedding: Embedding | None, linears: LinearEmitter = emit_float_linears
) -> ir.Model:
    """The whole graph: every encoder once, and every head on it.

    A run computes all of it, also what nobody asked for; docs/decisions/0002 says what that costs.

    Args:
        embedding: How sentence embeddings are made; None gives none, nor the encoder's other outputs.
        linears: How the encoder's products are computed.

    Raises:
        CheckpointError: Pooling by a pooler that the checkpoint lacks, or an activation without an operator.
    """
    graph = Graph(f"encort_{layout}")
    inputs = token_inputs(graph, model.encoders, layout)
    encoded = [_encode(graph, encoder, tokens, linears) for encoder, tokens in zip(model.encoders, inputs, strict=True)]
    if embedding is not None:
        _encoder_outputs(graph, model.encoders[0], encoded[0], embedding)
    for head in model.heads:
        _head_outputs(graph, head, encoded)
    return graph.model()


def _encode(graph: Graph, encoder: Encoder, tokens: Tokens, linears: LinearEmitter) -> Encoded:
    hidden, pooled = last_hidden_state(graph, encoder, tokens, linears), None
    if encoder.embeddings.words.dtype != np.float32:  # what is made of them is, whatever the layers compute in
        hidden = graph.op("Cast", hidden, to=ir.DataType.FLOAT)
    if encoder.pooler is not None:
        pooled = pooler_output(graph, encoder.pooler, tokens.arrangement.first(hidden))
    return Encoded(hidden, pooled, tokens.arrangement)


def pooler_output(graph: Graph, pooler: Linear, first: ir.Value) -> ir.Value:
    """`tanh(first token @ weight + bias)`, `(batch, hidden)`."""
    return graph.op("Tanh", linear(graph, pooler, first))


def _encoder_outputs(graph: Graph, encoder: Encoder, encoded: Encoded, embedding: Embedding) -> None:
    graph.output(encoded.hidden, LAST_HIDDEN_STATE, (*encoded.arrangement.axes, encoder.hidden))
    if encoded.pooled is not None:
        graph.output(encoded.pooled, POOLER_OUTPUT, ("batch", encoder.hidden))
    sentence_output(graph, encoded, embedding, encoder.hidden)


def sentence_output(graph: Graph, encoded: Encoded, embedding: Embedding, hidden: int) -> None:
    """Declare the sentence embedding, `(batch, hidden)`, among the graph's outputs."""
    sentence = _pool(encoded, embedding.pooling)
    sentence = _normalized(graph, sentence) if embedding.normalize else sentence
    graph.output(sentence, SENTENCE_EMBEDDING, ("batch", hidden))


def _normalized(graph: Graph, x: ir.Value) -> ir.Value:
    """`x / max(|x|, 1e-12)`, as `torch.nn.functional.normalize` has it; CUDA has no LpNormalization."""
    norm = graph.op("ReduceL2", x, graph.integers(-1), keepdims=1)
    return graph.op("Div", x, graph.op("Max", norm, graph.weight("smallest_norm", np.array([1e-12], np.float32))))


def _head_outputs(graph: Graph, head: HeadWeights, encoded: Sequence[Encoded]) -> None:
    x = _read(graph, head.reads, encoded)
    if head.dense is not None:
        x = activate(graph, head.activation, linear(graph, head.dense, x))
    axes = encoded[0].arrangement.axes if head.reads is Reads.TOKENS else ("batch",)
    if len(head.outputs) == 1:
        graph.output(linear(graph, head.logits, x), head.outputs[0], (*axes, head.logits.bias.size))
        return
    for column, name in enumerate(head.outputs):
        logits = linear(graph, _column(head.logits, column), x)
        graph.output(graph.op("Squeeze", logits, graph.integers(-1)), name, axes)


def _read(graph: Graph, reads: Reads, encoded: Sequence[Encoded]) -> ir.Value:
    if reads is Reads.TOKENS:
        return encoded[0].hidden
    if reads is Reads.FIRST_TOKEN:
        return encoded[0].arrangement.first(encoded[0].hidden)
    pooled = [each.pooled for each in encoded if each.pooled is not None]
    if len(pooled) < len(encoded):
        raise CheckpointError("the head reads a pooler that the checkpoint lacks; save the whole model")
    return graph.op("Concat", *pooled, axis=-1) if len(pooled) > 1 else pooled[0]


def _column(layer: Linear, column: int) -> Linear:
    part = slice(column, column + 1)
    return Linear(name=f"{layer.name}.{column}", weight=layer.weight[:, part].copy(), bias=layer.bias[part])


def _pool(encoded: Encoded, pooling: Pooling) -> ir.Value:
    """One vector a text, `(batch, hidden)`."""
    if pooling is Pooling.POOLER:
        if encoded.pooled is None:
            raise CheckpointError("the checkpoint has no pooler; pool by mean or cls (--pooling)")
        return encoded.pooled
    if pooling is Pooling.CLS:
        return encoded.arrangement.first(encoded.hidden)
    return encoded.arrangement.mean(encoded.hidden)
