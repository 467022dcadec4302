"""Write the encoder's graph from its description: inputs, embeddings, layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import Embeddings, Encoder
from encort.export.graph.layers import OpenLayerWriter, operator_layers
from encort.export.graph.layouts import ATTENTION_LAYOUTS, AttentionLayout
from encort.export.graph.operators import linear, normalize
from encort.runtime.bundle.manifest import Layout
from encort.runtime.common.arrays import FloatArray


@dataclass(frozen=True)
class Tokens:
    """Inputs of an encoder.

    Attributes:
        ids: Token ids, int64, with the axes of the layout.
        type_ids: Token type ids, int64, with the axes of the layout; None for an encoder without types.
        layout: Layout of the tokens.
    """

    ids: ir.Value
    type_ids: ir.Value | None
    layout: AttentionLayout


def token_inputs(builder: GraphBuilder, encoders: Sequence[Encoder], layout: Layout) -> list[Tokens]:
    """Declare the inputs of each encoder. A second encoder reads the same pairs with their texts swapped."""
    attention_layout = ATTENTION_LAYOUTS[layout]
    tokens: list[Tokens] = []
    for encoder, prefix in zip(encoders, ("", "reversed_"), strict=False):
        ids = builder.input(f"{prefix}input_ids", ir.DataType.INT64, attention_layout.axes)
        types = None
        if encoder.embeddings.types is not None:
            types = builder.input(f"{prefix}token_type_ids", ir.DataType.INT64, attention_layout.axes)
        # Swapping the texts of a pair does not change its length, so both encoders share one layout.
        tokens.append(Tokens(ids, types, tokens[0].layout if tokens else attention_layout(builder, ids)))
    return tokens


def last_hidden_state(
    builder: GraphBuilder, encoder: Encoder, tokens: Tokens, layers: OpenLayerWriter = operator_layers
) -> ir.Value:
    """Write the whole encoder and return the hidden states of its last layer, `(*axes, hidden)`."""
    layout = tokens.layout
    writer = layers(builder, encoder, layout)
    hidden = _embed(builder, encoder.embeddings, tokens)
    for layer in encoder.layers:
        hidden = writer.layer(layer, hidden)
    if encoder.final_norm is not None:
        hidden = normalize(builder, encoder.final_norm, hidden)
    return layout.repad(hidden)


def _embed(builder: GraphBuilder, embeddings: Embeddings, tokens: Tokens) -> ir.Value:
    name, layout = embeddings.name, tokens.layout
    total = builder.op("Gather", builder.weight(f"{name}.words", embeddings.words), layout.unpad(tokens.ids))
    if embeddings.types is not None and tokens.type_ids is not None:
        types = builder.weight(f"{name}.types", embeddings.types)
        # Eager PyTorch adds types before positions. The same order gives the same rounding.
        total = builder.op("Add", total, builder.op("Gather", types, layout.unpad(tokens.type_ids)))
    norm, positions = embeddings.norm, embeddings.positions
    if positions is None:
        hidden = total if norm is None else normalize(builder, norm, total)
    else:
        rows = _position_rows(builder, embeddings, positions, tokens)
        hidden = builder.op("Add", total, rows) if norm is None else layout.add_norm(total, rows, norm)
    return hidden if embeddings.projection is None else linear(builder, embeddings.projection, hidden)


def _position_rows(builder: GraphBuilder, embeddings: Embeddings, positions: FloatArray, tokens: Tokens) -> ir.Value:
    table = builder.weight(f"{embeddings.name}.positions", positions)
    if embeddings.padding_id is None:
        return tokens.layout.positions(table)
    indices = tokens.layout.roberta_positions(tokens.ids, embeddings.padding_id)
    return builder.op("Gather", table, tokens.layout.unpad(indices))
