"""What is computed from the hidden states: a few lines a head."""

import onnx_ir as ir

from encort.export.description import Encoder
from encort.export.encoder import Tokens, last_hidden_state, linear, token_inputs
from encort.export.graph import Graph
from encort.runtime.errors import CheckpointError
from encort.runtime.manifest import Layout, Output, Pooling


def author(encoder: Encoder, layout: Layout, *, pooling: Pooling, normalize: bool) -> ir.Model:
    """The whole graph: the encoder once, and every head that the checkpoint has.

    ONNX Runtime runs only what leads to the outputs that are asked for.

    Raises:
        CheckpointError: Pooling by a pooler that the checkpoint lacks, or an activation without an operator.
    """
    graph = Graph(f"encort_{layout}")
    tokens = token_inputs(graph, layout)
    hidden = last_hidden_state(graph, encoder, tokens)
    graph.output(hidden, Output.LAST_HIDDEN_STATE, ("batch", "sequence", encoder.hidden))
    pooled = None if encoder.pooler is None else _pooler_output(graph, encoder, hidden)
    if pooled is not None:
        graph.output(pooled, Output.POOLER_OUTPUT, ("batch", encoder.hidden))
    sentence = _pool(graph, pooling, hidden, pooled, tokens)
    sentence = _normalized(graph, sentence) if normalize else sentence
    graph.output(sentence, Output.SENTENCE_EMBEDDING, ("batch", encoder.hidden))
    if encoder.classifier is not None and pooled is not None:
        logits = linear(graph, encoder.classifier, pooled)
        graph.output(logits, Output.LOGITS, ("batch", encoder.classifier.bias.size))
    return graph.model()


def _pooler_output(graph: Graph, encoder: Encoder, hidden: ir.Value) -> ir.Value:
    """`tanh(dense(first token))`, `(batch, hidden)`."""
    assert encoder.pooler is not None
    return graph.op("Tanh", linear(graph, encoder.pooler, _first_token(graph, hidden)))


def _pool(graph: Graph, pooling: Pooling, hidden: ir.Value, pooled: ir.Value | None, tokens: Tokens) -> ir.Value:
    """One vector a text, `(batch, hidden)`."""
    if pooling is Pooling.POOLER:
        if pooled is None:
            raise CheckpointError("the checkpoint has no pooler; pool by mean or cls (--pooling)")
        return pooled
    if pooling is Pooling.CLS:
        return _first_token(graph, hidden)
    if tokens.mask is None:
        return graph.op("ReduceMean", hidden, graph.integers(1), keepdims=0)
    return _masked_mean(graph, hidden, tokens.mask)


def _masked_mean(graph: Graph, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    counted = graph.op("Unsqueeze", graph.op("Cast", mask, to=ir.DataType.FLOAT), graph.integers(2))
    total = graph.op("ReduceSum", graph.op("Mul", hidden, counted), graph.integers(1), keepdims=0)
    return graph.op("Div", total, graph.op("ReduceSum", counted, graph.integers(1), keepdims=0))


def _first_token(graph: Graph, hidden: ir.Value) -> ir.Value:
    return graph.op("Squeeze", graph.op("Gather", hidden, graph.integers(0), axis=1), graph.integers(1))


def _normalized(graph: Graph, x: ir.Value) -> ir.Value:
    return graph.op("LpNormalization", x, axis=-1, p=2)
