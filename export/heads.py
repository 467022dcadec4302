"""What is computed from the hidden states: a few lines a head."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from encort.export.description import Description, Encoder, Head, Linear, Reads
from encort.export.encoder import Linears, Tokens, activate, full_precision, last_hidden_state, linear, token_inputs
from encort.export.graph import Graph
from encort.runtime.errors import CheckpointError
from encort.runtime.manifest import LAST_HIDDEN_STATE, POOLER_OUTPUT, SENTENCE_EMBEDDING, Embedding, Layout, Pooling


@dataclass(frozen=True)
class Encoded:
    """One encoder's results: `(batch, sequence, hidden)`, and `(batch, hidden)` where it has a pooler."""

    hidden: ir.Value
    pooled: ir.Value | None


def author(
    model: Description, layout: Layout, *, embedding: Embedding | None, linears: Linears = full_precision
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
        _encoder_outputs(graph, model.encoders[0], encoded[0], inputs[0], embedding)
    for head in model.heads:
        _head_outputs(graph, head, encoded)
    return graph.model()


def _encode(graph: Graph, encoder: Encoder, tokens: Tokens, linears: Linears) -> Encoded:
    hidden = last_hidden_state(graph, encoder, tokens, linears)
    return Encoded(hidden, None if encoder.pooler is None else pooler_output(graph, encoder.pooler, hidden))


def pooler_output(graph: Graph, pooler: Linear, hidden: ir.Value) -> ir.Value:
    """`tanh(first token @ weight + bias)`, `(batch, hidden)`."""
    return graph.op("Tanh", linear(graph, pooler, _first_token(graph, hidden)))


def _encoder_outputs(graph: Graph, encoder: Encoder, encoded: Encoded, tokens: Tokens, embedding: Embedding) -> None:
    graph.output(encoded.hidden, LAST_HIDDEN_STATE, ("batch", "sequence", encoder.hidden))
    if encoded.pooled is not None:
        graph.output(encoded.pooled, POOLER_OUTPUT, ("batch", encoder.hidden))
    sentence_output(graph, encoded, tokens.mask, embedding, encoder.hidden)


def sentence_output(graph: Graph, encoded: Encoded, mask: ir.Value | None, embedding: Embedding, hidden: int) -> None:
    """Declare the sentence embedding, `(batch, hidden)`, among the graph's outputs."""
    sentence = _pool(graph, embedding.pooling, encoded, mask)
    sentence = graph.op("LpNormalization", sentence, axis=-1, p=2) if embedding.normalize else sentence
    graph.output(sentence, SENTENCE_EMBEDDING, ("batch", hidden))


def _head_outputs(graph: Graph, head: Head, encoded: Sequence[Encoded]) -> None:
    x = _read(graph, head.reads, encoded)
    if head.dense is not None:
        x = activate(graph, head.activation, linear(graph, head.dense, x))
    axes = ("batch", "sequence") if head.reads is Reads.TOKENS else ("batch",)
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
        return _first_token(graph, encoded[0].hidden)
    pooled = [each.pooled for each in encoded if each.pooled is not None]
    if len(pooled) < len(encoded):
        raise CheckpointError("the head reads a pooler that the checkpoint lacks; save the whole model")
    return graph.op("Concat", *pooled, axis=-1) if len(pooled) > 1 else pooled[0]


def _column(layer: Linear, column: int) -> Linear:
    part = slice(column, column + 1)
    return Linear(name=f"{layer.name}.{column}", weight=layer.weight[:, part].copy(), bias=layer.bias[part])


def _pool(graph: Graph, pooling: Pooling, encoded: Encoded, mask: ir.Value | None) -> ir.Value:
    """One vector a text, `(batch, hidden)`."""
    if pooling is Pooling.POOLER:
        if encoded.pooled is None:
            raise CheckpointError("the checkpoint has no pooler; pool by mean or cls (--pooling)")
        return encoded.pooled
    if pooling is Pooling.CLS:
        return _first_token(graph, encoded.hidden)
    if mask is None:
        return graph.op("ReduceMean", encoded.hidden, graph.integers(1), keepdims=0)
    return _masked_mean(graph, encoded.hidden, mask)


def _masked_mean(graph: Graph, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    counted = graph.op("Unsqueeze", graph.op("Cast", mask, to=ir.DataType.FLOAT), graph.integers(2))
    total = graph.op("ReduceSum", graph.op("Mul", hidden, counted), graph.integers(1), keepdims=0)
    return graph.op("Div", total, graph.op("ReduceSum", counted, graph.integers(1), keepdims=0))


def _first_token(graph: Graph, hidden: ir.Value) -> ir.Value:
    return graph.op("Squeeze", graph.op("Gather", hidden, graph.integers(0), axis=1), graph.integers(1))
