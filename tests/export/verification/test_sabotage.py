"""Each test sabotages the export; the wrong graph must never become a bundle."""

import copy
import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from encort.export import exporter, variants
from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import Description
from encort.export.int8 import model as int8_model
from encort.export.int8.quantization import QuantizedLinear
from encort.export.options import PoolingName
from encort.export.source import export_source
from encort.runtime.bundle.manifest import Embedding, Layout, Pooling
from encort.runtime.common.errors import FidelityError

MASK_INPUT_OF_ATTENTION = 4
Arrays = dict[str, np.ndarray]
Change = Callable[[Arrays], None]
export_bundle = functools.partial(exporter.export_bundle, variants=["fp32"])


def perturbed(name: str, *, by: float = 1e-2) -> Change:
    """Return a change that adds an error to the last number of one weight."""

    def change(weights: Arrays) -> None:
        weights[name] = weights[name].copy()
        weights[name].flat[-1] += by

    return change


def swapped(one: str, other: str) -> Change:
    def change(weights: Arrays) -> None:
        for name in [name for name in weights if one in name]:
            partner = name.replace(one, other)
            weights[name], weights[partner] = weights[partner], weights[name]

    return change


def reversed_rows(*names: str) -> Change:
    def change(weights: Arrays) -> None:
        for name in names:
            weights[name] = weights[name][::-1]

    return change


def positions_off_by_one(weights: Arrays) -> None:
    name = "bert.embeddings.position_embeddings.weight"
    weights[name] = np.roll(weights[name], 1, axis=0)


LAYER = "bert.encoder.layer.2."
PERTURBED = [
    "bert.embeddings.word_embeddings.weight",
    "bert.embeddings.position_embeddings.weight",
    "bert.embeddings.token_type_embeddings.weight",
    "bert.embeddings.LayerNorm.weight",
    "bert.embeddings.LayerNorm.bias",
    f"{LAYER}attention.self.query.weight",
    f"{LAYER}attention.self.query.bias",
    # The bias of the keys has no effect: it adds the same to all scores of a query, and softmax removes it.
    f"{LAYER}attention.self.key.weight",
    f"{LAYER}attention.self.value.weight",
    f"{LAYER}attention.self.value.bias",
    f"{LAYER}attention.output.dense.weight",
    f"{LAYER}attention.output.dense.bias",
    f"{LAYER}attention.output.LayerNorm.weight",
    f"{LAYER}attention.output.LayerNorm.bias",
    f"{LAYER}intermediate.dense.weight",
    f"{LAYER}intermediate.dense.bias",
    f"{LAYER}output.dense.weight",
    f"{LAYER}output.dense.bias",
    f"{LAYER}output.LayerNorm.weight",
    f"{LAYER}output.LayerNorm.bias",
    "bert.pooler.dense.weight",
    "bert.pooler.dense.bias",
    "classifier.weight",
    "classifier.bias",
]
WRONG_WEIGHTS = {
    **{f"{name} off by 1e-2": perturbed(name) for name in PERTURBED},
    "NaN": perturbed(f"{LAYER}output.dense.bias", by=np.nan),
    "infinity": perturbed(f"{LAYER}output.dense.bias", by=np.inf),
    "query and key swapped": swapped("self.query", "self.key"),
    "key and value swapped": swapped("self.key", "self.value"),
    "layers swapped": swapped("layer.0.", "layer.1."),
    "norms swapped": swapped("layer.0.attention.output.LayerNorm", "layer.0.output.LayerNorm"),
    "positions off by one": positions_off_by_one,
    "token types reversed": reversed_rows("bert.embeddings.token_type_embeddings.weight"),
    "labels reversed": reversed_rows("classifier.weight", "classifier.bias"),
}
WRONG_SETTINGS = {
    "one layer less": {"num_hidden_layers": 2},
    "other heads": {"num_attention_heads": 4},
    "another activation": {"hidden_act": "relu"},
    "epsilon of 1e-5 for 1e-12": {"layer_norm_eps": 1e-5},
}


def attentions(graph: ir.Graph) -> list[ir.Node]:
    return [node for node in graph.all_nodes() if node.op_type == "MultiHeadAttention"]


def masked_attentions(graph: ir.Graph) -> list[ir.Node]:
    at = MASK_INPUT_OF_ATTENTION
    return [node for node in attentions(graph) if len(node.inputs) > at and node.inputs[at] is not None]


def only(graph: ir.Graph, kind: str) -> ir.Node:
    (node,) = [node for node in graph if node.op_type == kind]
    return node


def drop_attention_mask(graph: ir.Graph) -> None:
    for node in masked_attentions(graph):
        node.replace_input_with(MASK_INPUT_OF_ATTENTION, None)


def drop_pooling_mask(graph: ir.Graph) -> None:
    """Let every token count in the mean: compare the mask with itself, so that it is one everywhere."""
    for unsqueeze in [node for node in graph if node.op_type == "Unsqueeze"]:
        cast = unsqueeze.inputs[0].producer()
        ones = ir.node("Equal", [cast.inputs[0], cast.inputs[0]])
        graph.insert_before(cast, ones)
        cast.replace_input_with(0, ones.outputs[0])


def invert_attention_mask(graph: ir.Graph) -> None:
    for node in masked_attentions(graph):
        inverted = ir.node("Sub", [node.inputs[MASK_INPUT_OF_ATTENTION]] * 2)
        # The attention is in a branch, whose names must differ from those of the graph around it.
        inverted.outputs[0].name = f"inverted.{node.outputs[0].name}"
        node.graph.insert_before(node, inverted)
        node.replace_input_with(MASK_INPUT_OF_ATTENTION, inverted.outputs[0])


def forget_attention_scale(graph: ir.Graph) -> None:
    for node in attentions(graph):
        node.attributes["scale"] = ir.AttrFloat32("scale", 1.0)


def attend_to_earlier_tokens_only(graph: ir.Graph) -> None:
    for node in attentions(graph):
        node.attributes["unidirectional"] = ir.AttrInt64("unidirectional", 1)


def approximate_gelu(graph: ir.Graph) -> None:
    for node in graph:
        if node.op_type == "Gelu":
            node.op_type = "QuickGelu"


def forget_to_normalize(graph: ir.Graph) -> None:
    (largest,) = only(graph, "ReduceL2").outputs[0].consumers()
    (node,) = largest.outputs[0].consumers()
    node.op_type = "Identity"
    node.resize_inputs(1)


def normalize_by_the_sum(graph: ir.Graph) -> None:
    only(graph, "ReduceL2").op_type = "ReduceL1"


def forget_a_residual(graph: ir.Graph) -> None:
    addition = [node for node in graph if node.op_type == "LayerNormalization"][-1].inputs[0].producer()
    addition.replace_input_with(1, addition.inputs[0])


def look_at_the_neighbours(graph: ir.Graph) -> None:
    """Let the token types of the other texts of the batch leak into the embeddings."""
    gather = [node for node in graph if node.op_type == "Gather"][1]
    users = [use.node for use in gather.outputs[0].uses()]
    axis = ir.node("Constant", [], {"value_ints": [0]})
    leak = ir.node("ReduceMax", [gather.outputs[0], axis.outputs[0]], {"keepdims": 1})
    graph.insert_after(gather, [axis, leak])
    users[0].replace_input_with(1, leak.outputs[0])


AUTHORED = {Layout.EQUAL_LENGTH, Layout.RAGGED}
WRONG_GRAPHS = {
    drop_attention_mask: {Layout.RAGGED},
    drop_pooling_mask: {Layout.RAGGED},
    invert_attention_mask: {Layout.RAGGED},
    forget_attention_scale: AUTHORED,
    attend_to_earlier_tokens_only: AUTHORED,
    approximate_gelu: AUTHORED,
    forget_to_normalize: AUTHORED,
    normalize_by_the_sum: AUTHORED,
    forget_a_residual: AUTHORED,
    look_at_the_neighbours: AUTHORED,
}


def unchanged(_: Any) -> None:
    """Change nothing."""


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`wrong(weights=, settings=, graph=, layouts=)` sabotages all later exports of the test."""

    def sabotage(
        *,
        weights: Change = unchanged,
        settings: Mapping[str, Any] = MappingProxyType({}),
        graph: Callable[[ir.Graph], None] = unchanged,
        layouts: Collection[Layout] = Layout,
    ) -> None:
        def sabotaged(describe: Callable[..., Any]) -> Callable[..., Any]:
            def describe_wrongly(config: Any, arrays: Arrays, *arguments: Any, **options: Any) -> Any:
                other, changed = copy.deepcopy(config), dict(arrays)
                other.update(dict(settings))
                weights(changed)
                return describe(other, changed, *arguments, **options)

            return describe_wrongly

        def author(description: Description, layout: Layout, **options: Any) -> ir.Model:
            model = right_author(description, layout, **options)
            if layout in layouts:
                graph(model.graph)
            return model

        monkeypatch.setattr(export_source, "describe_encoder", sabotaged(export_source.describe_encoder))
        monkeypatch.setattr(export_source, "describe_head", sabotaged(export_source.describe_head))
        monkeypatch.setattr(variants, "author", author)

    right_author = variants.author
    return sabotage


@pytest.fixture
def refused_for_fidelity(output: Path) -> Callable[..., None]:
    def check(checkpoint: Path, variant: str = "cpu-fp32") -> None:
        with pytest.raises(FidelityError, match=f"variant {variant} differs from eager PyTorch"):
            export_bundle(checkpoint, output)
        assert list(output.parent.iterdir()) == []

    return check


@pytest.fixture(scope="session")
def fragile_checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    """A classifier with embeddings so small that their variance is near epsilon."""
    return make_checkpoint(labels=["a", "b", "c"], seed=9, initializer_range=3e-3, layer_norm_eps=1e-12)


def test_an_export_without_sabotage_passes(
    classifier_checkpoint: Path, fragile_checkpoint: Path, output: Path, wrong: Callable[..., None]
) -> None:
    wrong()
    assert export_bundle(classifier_checkpoint, output).folder == output
    assert export_bundle(fragile_checkpoint, output, overwrite=True).folder == output


@pytest.mark.parametrize("weights", WRONG_WEIGHTS.values(), ids=WRONG_WEIGHTS)
def test_wrong_weights_never_become_a_bundle(
    weights: Change, classifier_checkpoint: Path, wrong: Callable[..., None], refused_for_fidelity: Callable[..., None]
) -> None:
    wrong(weights=weights)
    refused_for_fidelity(classifier_checkpoint)


@pytest.mark.parametrize("settings", WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_wrong_settings_never_become_a_bundle(
    settings: dict[str, Any],
    classifier_checkpoint: Path,
    fragile_checkpoint: Path,
    wrong: Callable[..., None],
    refused_for_fidelity: Callable[..., None],
) -> None:
    wrong(settings=settings)
    refused_for_fidelity(fragile_checkpoint if "layer_norm_eps" in settings else classifier_checkpoint)


@pytest.mark.parametrize(
    ("graph", "layout"),
    [(graph, layout) for graph, layouts in WRONG_GRAPHS.items() for layout in sorted(layouts)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_wrong_graph_of_one_layout_never_becomes_a_bundle(
    graph: Callable[[ir.Graph], None],
    layout: Layout,
    classifier_checkpoint: Path,
    wrong: Callable[..., None],
    refused_for_fidelity: Callable[..., None],
) -> None:
    wrong(graph=graph, layouts={layout})
    refused_for_fidelity(classifier_checkpoint, {"ragged": "cpu-fp32-ragged", "equal_length": "cpu-fp32"}[layout])


@pytest.mark.parametrize(("asked", "authored"), [("mean", Pooling.CLS), ("cls", Pooling.POOLER)])
def test_a_wrong_pooling_never_becomes_a_bundle(
    asked: PoolingName, authored: Pooling, encoder_checkpoint: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def author(*arguments: Any, embedding: Embedding, **options: Any) -> ir.Model:
        return right(*arguments, embedding=replace(embedding, pooling=[authored]), **options)

    right = variants.author
    monkeypatch.setattr(variants, "author", author)
    with pytest.raises(FidelityError, match="sentence_embedding"):
        export_bundle(encoder_checkpoint, output, pooling=asked)
    assert list(output.parent.iterdir()) == []


def test_an_earlier_bundle_survives_a_failed_export(
    classifier_checkpoint: Path,
    encoder_checkpoint: Path,
    output: Path,
    files: Callable[[Path], Mapping[str, bytes]],
    wrong: Callable[..., None],
) -> None:
    export_bundle(encoder_checkpoint, output)
    before = files(output)
    wrong(graph=drop_attention_mask)
    with pytest.raises(FidelityError):
        export_bundle(classifier_checkpoint, output, overwrite=True)
    assert files(output) == before
    assert [path.name for path in output.parent.iterdir()] == ["new.bundle"]


@pytest.mark.parametrize("part", ["weight", "scales", "bias"])
def test_an_int8_graph_that_differs_from_the_simulation_is_refused(
    encoder_checkpoint: Path, output: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    author = int8_model._emit_product

    def wrong(graph: GraphBuilder, layer: QuantizedLinear, *values: ir.Value) -> Any:
        return author(graph, replace(layer, **{part: -getattr(layer, part)}), *values)

    monkeypatch.setattr(int8_model, "_emit_product", wrong)
    with pytest.raises(FidelityError, match="cpu-int8: the cosines"):
        exporter.export_bundle(encoder_checkpoint, output, variants=["int8"])
    assert list(output.parent.iterdir()) == []
