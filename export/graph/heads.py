"""Write the outputs of a graph: hidden states, pooler, sentence embedding and the logits of every head."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import Description, Encoder, HeadWeights, Linear, Reads, VocabularyHead
from encort.export.graph.encoder import Tokens, last_hidden_state, token_inputs
from encort.export.graph.layers import OpenLayerWriter, operator_layers
from encort.export.graph.layouts import ATTENTION_LAYOUTS
from encort.export.graph.operators import activate, linear, normalize
from encort.export.graph.retrieval import retrieval_outputs
from encort.export.graph.sentence import Encoded, mean_of_tokens, sentence_output
from encort.export.graph.vocabulary import masked_word_output
from encort.runtime.bundle.manifest import LAST_HIDDEN_STATE, POOLER_OUTPUT, Embedding, Layout
from encort.runtime.common.errors import CheckpointError


def author(
    model: Description, layout: Layout, *, embedding: Embedding | None, layers: OpenLayerWriter = operator_layers
) -> ir.Model:
    """Write the whole graph: every encoder once, and all heads on it.

    A run computes every output, even one that the caller did not ask for; docs/decisions/0002 gives the cost.

    Args:
        model: Description of the model.
        layout: Layout of the tokens.
        embedding: Poolings and normalization of sentence embeddings. None leaves out the sentence embeddings and the
            other outputs of the encoder.
        layers: Writer of the encoders' layers.

    Raises:
        CheckpointError: The checkpoint lacks the pooler that `embedding` or a head needs, or an activation has no
            operator.
    """
    builder = GraphBuilder(f"encort_{layout}", opsets=ATTENTION_LAYOUTS[layout].opsets)
    inputs = token_inputs(builder, model.encoders, layout)
    encoded = [
        _encode(builder, encoder, tokens, layers) for encoder, tokens in zip(model.encoders, inputs, strict=True)
    ]
    if embedding is not None:
        _encoder_outputs(builder, model, encoded[0], embedding)
    retrieval_outputs(builder, encoded[0], model.retrieval, model.encoders[0])
    for head in model.heads:
        if isinstance(head, VocabularyHead):
            masked_word_output(builder, head, model.encoders[0], encoded[0])
        else:
            _head_outputs(builder, head, encoded)
    return builder.model()


def _encode(builder: GraphBuilder, encoder: Encoder, tokens: Tokens, layers: OpenLayerWriter) -> Encoded:
    hidden, pooled = last_hidden_state(builder, encoder, tokens, layers), None
    if encoder.embeddings.words.dtype != np.float32:
        # Pooling and heads compute in float32, whatever the precision of the layers.
        hidden = builder.op("Cast", hidden, to=ir.DataType.FLOAT)
    if encoder.pooler is not None:
        pooled = pooler_output(builder, encoder.pooler, tokens.layout.first(hidden))
    return Encoded(hidden, pooled, tokens.layout)


def pooler_output(builder: GraphBuilder, pooler: Linear, first: ir.Value) -> ir.Value:
    """Write `tanh(first token @ weight + bias)`, `(batch, hidden)`."""
    return builder.op("Tanh", linear(builder, pooler, first))


def _encoder_outputs(builder: GraphBuilder, model: Description, encoded: Encoded, embedding: Embedding) -> None:
    hidden = model.encoders[0].hidden
    builder.output(encoded.hidden, LAST_HIDDEN_STATE, (*encoded.layout.axes, hidden))
    if encoded.pooled is not None:
        builder.output(encoded.pooled, POOLER_OUTPUT, ("batch", hidden))
    sentence_output(builder, encoded, embedding, model.modules, hidden)


def _head_outputs(builder: GraphBuilder, head: HeadWeights, encoded: Sequence[Encoded]) -> None:
    x = _head_input(builder, head.reads, encoded)
    if head.dense is not None:
        x = activate(builder, head.activation, linear(builder, head.dense, x))
    if head.norm is not None:
        x = normalize(builder, head.norm, x)
    if head.reads is Reads.TOKENS_THEN_MEAN:
        x = mean_of_tokens(builder, replace(encoded[0], hidden=x))
    axes = encoded[0].layout.axes if head.reads is Reads.TOKENS else ("batch",)
    if len(head.outputs) == 1:
        builder.output(linear(builder, head.logits, x), head.outputs[0], (*axes, head.logits.width))
        return
    for column, name in enumerate(head.outputs):
        logits = linear(builder, _column(head.logits, column), x)
        builder.output(builder.op("Squeeze", logits, builder.integers(-1)), name, axes)


def _head_input(builder: GraphBuilder, reads: Reads, encoded: Sequence[Encoded]) -> ir.Value:
    if reads in (Reads.TOKENS, Reads.TOKENS_THEN_MEAN):
        return encoded[0].hidden
    if reads is Reads.MEAN:
        return mean_of_tokens(builder, encoded[0])
    if reads is Reads.FIRST_TOKEN:
        return encoded[0].layout.first(encoded[0].hidden)
    pooled = [results.pooled for results in encoded if results.pooled is not None]
    if len(pooled) < len(encoded):
        raise CheckpointError("the head reads a pooler that the checkpoint lacks; save the whole model")
    return builder.op("Concat", *pooled, axis=-1) if len(pooled) > 1 else pooled[0]


def _column(layer: Linear, column: int) -> Linear:
    part = slice(column, column + 1)
    bias = None if layer.bias is None else layer.bias[part]
    return Linear(name=f"{layer.name}.{column}", weight=layer.weight[:, part].copy(), bias=bias)
