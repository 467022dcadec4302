"""A graph that is not the model that was trained never becomes a bundle: the export is sabotaged, and says so."""

import copy
import functools
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from encort.export import exporter, variants
from encort.export.int8 import model as int8_model
from encort.export.source import export_source
from encort.runtime.bundle.manifest import Layout, Pooling
from encort.runtime.common.errors import FidelityError

MASK_INPUT_OF_ATTENTION = 4
export_bundle = functools.partial(exporter.export_bundle, variants=["fp32"])


def perturbed(name, *, by=1e-2):
    """One number of one weight is off: the last."""

    def change(weights):
        weights[name] = weights[name].copy()
        weights[name].flat[-1] += by

    return change


def swapped(one, other):
    def change(weights):
        for name in [name for name in weights if one in name]:
            partner = name.replace(one, other)
            weights[name], weights[partner] = weights[partner], weights[name]

    return change


def reversed_rows(*names):
    def change(weights):
        for name in names:
            weights[name] = weights[name][::-1]

    return change


def positions_off_by_one(weights):
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
    # The bias of the keys adds the same to all scores of a query: softmax takes it away again.
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
    "a layer less": {"num_hidden_layers": 2},
    "other heads": {"num_attention_heads": 4},
    "another activation": {"hidden_act": "relu"},
    "epsilon of 1e-5 for 1e-12": {"layer_norm_eps": 1e-5},
}


def attentions(graph):
    return [node for node in graph if node.op_type == "MultiHeadAttention"]


def only(graph, kind):
    (node,) = [node for node in graph if node.op_type == kind]
    return node


def drop_attention_mask(graph):
    for node in attentions(graph):
        if len(node.inputs) > MASK_INPUT_OF_ATTENTION:
            node.replace_input_with(MASK_INPUT_OF_ATTENTION, None)


def drop_pooling_mask(graph):
    """Every token counts in the mean: a mask that equals itself everywhere."""
    for unsqueeze in [node for node in graph if node.op_type == "Unsqueeze"]:
        cast = unsqueeze.inputs[0].producer()
        ones = ir.node("Equal", [cast.inputs[0], cast.inputs[0]])
        graph.insert_before(cast, ones)
        cast.replace_input_with(0, ones.outputs[0])


def invert_attention_mask(graph):
    for node in attentions(graph):
        if len(node.inputs) > MASK_INPUT_OF_ATTENTION:
            ones = ir.node("Sub", [node.inputs[MASK_INPUT_OF_ATTENTION]] * 2)
            graph.insert_before(node, ones)
            node.replace_input_with(MASK_INPUT_OF_ATTENTION, ones.outputs[0])


def forget_attention_scale(graph):
    for node in attentions(graph):
        node.attributes["scale"] = ir.AttrFloat32("scale", 1.0)


def attend_to_earlier_tokens_alone(graph):
    for node in attentions(graph):
        node.attributes["unidirectional"] = ir.AttrInt64("unidirectional", 1)


def approximate_gelu(graph):
    for node in graph:
        if node.op_type == "Gelu":
            node.op_type = "QuickGelu"


def forget_to_normalize(graph):
    (node,) = only(graph, "Max").outputs[0].consumers()
    node.op_type = "Identity"
    node.resize_inputs(1)


def normalize_by_the_sum(graph):
    only(graph, "ReduceL2").op_type = "ReduceL1"


def forget_a_residual(graph):
    addition = [node for node in graph if node.op_type == "LayerNormalization"][-1].inputs[0].producer()
    addition.replace_input_with(1, addition.inputs[0])


def look_at_the_neighbours(graph):
    """Token types of the other texts of the batch leak into the embeddings."""
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
    attend_to_earlier_tokens_alone: AUTHORED,
    approximate_gelu: AUTHORED,
    forget_to_normalize: AUTHORED,
    normalize_by_the_sum: AUTHORED,
    forget_a_residual: AUTHORED,
    look_at_the_neighbours: AUTHORED,
}


@pytest.fixture
def wrong(monkeypatch):
    """`wrong(weights=, settings=, graph=, layouts=)`: from now on, exports author something else."""

    def sabotage(*, weights=lambda weights: None, settings=(), graph=lambda graph: None, layouts=Layout):  # noqa: ARG005
        def wrongly(describe):
            def describe_something_else(config, arrays, *arguments, **options):
                other, changed = copy.deepcopy(config), dict(arrays)
                other.update(dict(settings))
                weights(changed)
                return describe(other, changed, *arguments, **options)

            return describe_something_else

        def author(description, layout, **options):
            model = right_author(description, layout, **options)
            if layout in layouts:
                graph(model.graph)
            return model

        monkeypatch.setattr(export_source, "describe_encoder", wrongly(export_source.describe_encoder))
        monkeypatch.setattr(export_source, "describe_head", wrongly(export_source.describe_head))
        monkeypatch.setattr(variants, "author", author)

    right_author = variants.author
    return sabotage


@pytest.fixture
def refused_for_fidelity(output):
    def check(checkpoint, variant="cpu-fp32"):
        with pytest.raises(FidelityError, match=f"variant {variant} differs from eager PyTorch"):
            export_bundle(checkpoint, output)
        assert list(output.parent.iterdir()) == []

    return check


@pytest.fixture(scope="session")
def fragile_checkpoint(make_checkpoint):
    """A classifier whose embeddings have a variance as small as epsilon."""
    return make_checkpoint(labels=["a", "b", "c"], seed=9, initializer_range=3e-3, layer_norm_eps=1e-12)


def test_an_export_without_sabotage_passes(classifier_checkpoint, fragile_checkpoint, output, wrong):
    wrong()
    assert export_bundle(classifier_checkpoint, output).folder == output
    assert export_bundle(fragile_checkpoint, output, overwrite=True).folder == output


@pytest.mark.parametrize("weights", WRONG_WEIGHTS.values(), ids=WRONG_WEIGHTS)
def test_wrong_weights_never_become_a_bundle(weights, classifier_checkpoint, wrong, refused_for_fidelity):
    wrong(weights=weights)
    refused_for_fidelity(classifier_checkpoint)


@pytest.mark.parametrize("settings", WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_wrong_settings_never_become_a_bundle(
    settings, classifier_checkpoint, fragile_checkpoint, wrong, refused_for_fidelity
):
    wrong(settings=settings)
    refused_for_fidelity(fragile_checkpoint if "layer_norm_eps" in settings else classifier_checkpoint)


@pytest.mark.parametrize(
    ("graph", "layout"),
    [(graph, layout) for graph, layouts in WRONG_GRAPHS.items() for layout in sorted(layouts)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_one_wrong_graph_never_becomes_a_bundle(graph, layout, classifier_checkpoint, wrong, refused_for_fidelity):
    wrong(graph=graph, layouts={layout})
    refused_for_fidelity(classifier_checkpoint, {"ragged": "cpu-fp32-ragged", "equal_length": "cpu-fp32"}[layout])


@pytest.mark.parametrize(("asked", "given"), [(Pooling.MEAN, Pooling.CLS), (Pooling.CLS, Pooling.POOLER)])
def test_another_pooling_never_becomes_a_bundle(asked, given, encoder_checkpoint, output, monkeypatch):
    def author(*arguments, embedding, **options):
        return right(*arguments, embedding=replace(embedding, pooling=given), **options)

    right = variants.author
    monkeypatch.setattr(variants, "author", author)
    with pytest.raises(FidelityError, match="sentence_embedding"):
        export_bundle(encoder_checkpoint, output, pooling=asked)
    assert list(output.parent.iterdir()) == []


def test_an_earlier_bundle_survives_a_failed_export(classifier_checkpoint, encoder_checkpoint, output, files, wrong):
    export_bundle(encoder_checkpoint, output)
    before = files(output)
    wrong(graph=drop_attention_mask)
    with pytest.raises(FidelityError):
        export_bundle(classifier_checkpoint, output, overwrite=True)
    assert files(output) == before
    assert [path.name for path in output.parent.iterdir()] == ["new.bundle"]


@pytest.mark.parametrize("part", ["weight", "scales", "bias"])
def test_an_eight_bit_graph_that_is_not_the_simulated_one_is_refused(encoder_checkpoint, output, monkeypatch, part):
    author = int8_model._emit_product

    def wrong(graph, layer, *values):
        return author(graph, replace(layer, **{part: -getattr(layer, part)}), *values)

    monkeypatch.setattr(int8_model, "_emit_product", wrong)
    with pytest.raises(FidelityError, match="cpu-int8: the cosines"):
        exporter.export_bundle(encoder_checkpoint, output, variants=["int8"])
    assert list(output.parent.iterdir()) == []
