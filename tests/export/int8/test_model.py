"""The int8 graph computes the same as the simulation, for any choice of layers in full precision."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

import encort
from encort.export.exporter import export_bundle
from encort.export.graph.builder import save_sharing_weights
from encort.export.graph.heads import author
from encort.export.int8 import model as int8_model
from encort.export.int8.calibration import Calibration, cases, groups, simulated
from encort.export.int8.model import QuantizedModel, by_sensitivity, fit_int8, quantize_model, within_budget
from encort.export.source.export_source import ExportSource
from encort.export.verification.oracle import Oracle, padded_case
from encort.export.verification.samples import sample_texts
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Layout
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.verification.tolerance import cosines

QUERY, ATTENDED = "encoder.layer.{}.attention.self.query", "encoder.layer.{}.attention.output.dense"
FFN = ("encoder.layer.{}.intermediate.dense", "encoder.layer.{}.output.dense")
LAYERS = range(3)
ALL = [name.format(number) for name in (QUERY, ATTENDED, *FFN) for number in LAYERS]


@pytest.fixture(scope="module")
def source(encoder_checkpoint: Path) -> ExportSource:
    return ExportSource.open([str(encoder_checkpoint)])


@pytest.fixture(scope="module")
def oracle(source: ExportSource) -> Oracle:
    return Oracle.of(source)


@pytest.fixture(scope="module")
def texts(encoder_checkpoint: Path) -> TokenBatch:
    return Tokenizer((encoder_checkpoint / "tokenizer.json").read_bytes(), max_length=64)(sample_texts())


@pytest.fixture(scope="module")
def model(source: ExportSource, texts: TokenBatch) -> QuantizedModel:
    """A model with every group quantized and smoothed, in 7 bits, which are exact on every processor."""
    return quantize_model(source, texts, weight_bits=7, strengths=(0.7,))


@pytest.fixture(scope="module")
def open_graph(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ir.Model], onnxruntime.InferenceSession]:
    def open_in_onnx_runtime(graph: ir.Model) -> onnxruntime.InferenceSession:
        target = tmp_path_factory.mktemp("authored") / "model.onnx"
        save_sharing_weights({target.name: graph}, target.parent, "model.weights")
        return onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])

    return open_in_onnx_runtime


# The graph and the simulation.


@pytest.mark.parametrize(
    "excluded",
    [
        [],
        [QUERY.format(1)],
        [ATTENDED.format(1)],
        [QUERY.format(number) for number in LAYERS],
        [ATTENDED.format(number) for number in LAYERS],
        [name.format(number) for name in FFN for number in LAYERS],
        [name for name in ALL if name != ATTENDED.format(2)],
        [name for name in ALL if name != QUERY.format(2)],
    ],
    ids=[
        "all quantized",
        "one QKV in full",
        "one attention output in full",
        "every QKV in full",
        "every attention output in full",
        "FFN in full",
        "only one attention output quantized",
        "only one QKV quantized",
    ],
)
def test_the_graph_equals_the_simulation(
    source: ExportSource,
    oracle: Oracle,
    texts: TokenBatch,
    model: QuantizedModel,
    open_graph: Callable[[ir.Model], onnxruntime.InferenceSession],
    run_graph: Callable[..., dict[str, np.ndarray]],
    excluded: list[str],
) -> None:
    candidate = model.without(excluded)
    assert set(candidate.groups) == set(ALL) - set(excluded)
    session = open_graph(candidate.author(Layout.EQUAL_LENGTH, embedding=source.embedding))
    errors = []
    for case in cases(texts):
        with simulated(oracle, candidate.groups):
            expected = oracle(case)
        outputs = run_graph(session, case.inputs)
        assert outputs.keys() == expected.keys()
        for name, array in expected.items():
            assert cosines(outputs[name], array).min() > 0.999
            errors.append(np.linalg.norm(outputs[name] - array) / np.linalg.norm(array))
    # Sometimes a number in the middle of two steps is rounded to the other step.
    assert np.median(errors) < 1e-4
    assert np.max(errors) < 0.05


def test_smoothing_of_attention_outputs_costs_no_node(source: ExportSource, model: QuantizedModel) -> None:
    assert all(group.divisor is not None for group in model.groups.values())
    names = set(model.author(Layout.EQUAL_LENGTH, embedding=source.embedding).graph.initializers)
    smoothed = {name.removesuffix(".smoothing") for name in names if name.endswith(".smoothing")}
    assert smoothed == set(ALL) - {ATTENDED.format(number) for number in LAYERS}


def test_a_model_without_quantized_groups_equals_full_precision(
    source: ExportSource,
    texts: TokenBatch,
    model: QuantizedModel,
    open_graph: Callable[[ir.Model], onnxruntime.InferenceSession],
    run_graph: Callable[..., dict[str, np.ndarray]],
) -> None:
    none = open_graph(model.without(ALL).author(Layout.EQUAL_LENGTH, embedding=source.embedding))
    full = open_graph(author(source.description, Layout.EQUAL_LENGTH, embedding=source.embedding))
    for case in cases(texts)[:3]:
        outputs, expected = run_graph(none, case.inputs), run_graph(full, case.inputs)
        for name, array in expected.items():
            np.testing.assert_array_equal(outputs[name], array)


def test_authoring_does_not_change_the_groups(source: ExportSource, model: QuantizedModel) -> None:
    before = {name: (group.divisor, [layer.scales for layer in group.layers]) for name, group in model.groups.items()}
    nodes = [len(model.author(Layout.EQUAL_LENGTH, embedding=source.embedding).graph) for _ in range(2)]
    after = {name: (group.divisor, [layer.scales for layer in group.layers]) for name, group in model.groups.items()}
    assert nodes[0] == nodes[1]
    assert all(after[name][0] is divisor for name, (divisor, _) in before.items())
    assert all(one is other for name in before for one, other in zip(before[name][1], after[name][1], strict=True))


def test_quantized_vectors_are_near_those_in_full_precision(
    oracle: Oracle, texts: TokenBatch, model: QuantizedModel
) -> None:
    for case in cases(texts)[::10]:
        with simulated(oracle, model.groups):
            embeddings = oracle(case)["sentence_embedding"]
        assert cosines(embeddings, oracle(case)["sentence_embedding"]).min() > 0.95


def test_a_text_has_the_same_vector_alone_and_with_neighbours(
    source: ExportSource,
    texts: TokenBatch,
    model: QuantizedModel,
    open_graph: Callable[[ir.Model], onnxruntime.InferenceSession],
    run_graph: Callable[..., dict[str, np.ndarray]],
) -> None:
    session = open_graph(model.author(Layout.EQUAL_LENGTH, embedding=source.embedding))
    random = np.random.default_rng(0)
    for index in (0, 7, 21):
        rows = texts.rows(np.array([index]))
        others = {name: random.integers(0, 2, (6, array.shape[1])) for name, array in rows.items()}
        crowd = {name: np.concatenate([others[name][:3], rows[name], others[name][3:]]) for name in rows}
        alone, together = (run_graph(session, inputs)["sentence_embedding"] for inputs in (rows, crowd))
        np.testing.assert_allclose(together[3], alone[0], rtol=0, atol=1e-5)


# The budget of cosines.


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    def allow(mean: float, smallest: float) -> None:
        monkeypatch.setattr(int8_model, "MEAN_COSINE", mean)
        monkeypatch.setattr(int8_model, "MIN_COSINE", smallest)

    return allow


@pytest.fixture(scope="module")
def sensitive(oracle: Oracle, texts: TokenBatch, model: QuantizedModel) -> list[str]:
    return by_sensitivity(model, oracle, texts)


@pytest.fixture(scope="module")
def similar(oracle: Oracle, texts: TokenBatch, model: QuantizedModel, sensitive: list[str]) -> np.ndarray:
    """Cosines of the texts, `(excluded groups, texts)`, with each text run alone."""
    rows = [padded_case("alone", [texts.rows(np.array([index]))]) for index in range(len(texts))]

    def vectors() -> np.ndarray:
        return np.concatenate([oracle(case)["sentence_embedding"] for case in rows])

    expected, similarities = vectors(), []
    for count in range(len(ALL)):
        with simulated(oracle, model.without(sensitive[:count]).groups):
            similarities.append(cosines(vectors(), expected))
    return np.array(similarities)


def test_a_budget_that_is_met_quantizes_everything(
    oracle: Oracle, texts: TokenBatch, model: QuantizedModel, budget: Callable[[float, float], None]
) -> None:
    budget(-1, -1)
    assert within_budget(model, oracle, texts).groups == model.groups


@pytest.mark.parametrize("unreachable", [(2, -1), (-1, 2)], ids=["mean", "smallest"])
def test_a_budget_that_cannot_be_met_quantizes_nothing(
    oracle: Oracle,
    texts: TokenBatch,
    model: QuantizedModel,
    budget: Callable[[float, float], None],
    unreachable: tuple[float, float],
) -> None:
    budget(*unreachable)
    assert within_budget(model, oracle, texts).groups == {}


@pytest.mark.parametrize("wanted", [1, 3, 7])
@pytest.mark.parametrize("kind", ["mean", "smallest"])
def test_only_as_many_groups_as_needed_stay_in_full_precision(
    oracle: Oracle,
    texts: TokenBatch,
    model: QuantizedModel,
    budget: Callable[[float, float], None],
    sensitive: list[str],
    similar: np.ndarray,
    wanted: int,
    kind: str,
) -> None:
    measured = similar.mean(axis=1) if kind == "mean" else similar.min(axis=1)
    enough = measured[wanted] - 1e-7
    budget(*((enough, -1) if kind == "mean" else (-1, enough)))
    count = int(np.argmax(measured >= enough))
    fitted = within_budget(model, oracle, texts)
    assert set(fitted.groups) == set(ALL) - set(sensitive[:count])
    assert 0 < count <= wanted


def test_the_group_that_costs_most_is_the_most_sensitive(
    oracle: Oracle, texts: TokenBatch, model: QuantizedModel
) -> None:
    damaged = FFN[1].format(1)
    coarse = replace(model.groups[damaged], scale=model.groups[damaged].scale * 40)
    names = by_sensitivity(replace(model, groups={**model.groups, damaged: coarse}), oracle, texts)
    assert names[0] == damaged
    assert sorted(names) == sorted(ALL)


def test_fitting_judges_by_texts_that_it_has_not_seen(
    source: ExportSource, encoder_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer((encoder_checkpoint / "tokenizer.json").read_bytes(), max_length=64)
    calibration = Calibration.tokenize(source, tokenizer, sample_texts())
    used = {}
    monkeypatch.setattr(int8_model, "quantize_model", lambda _source, texts, **_: used.setdefault("seen", texts))
    monkeypatch.setattr(
        int8_model, "within_budget", lambda _model, _oracle, texts, **_: used.setdefault("judged", texts)
    )
    fit_int8(source, calibration, weight_bits=7)
    assert used == {"seen": calibration.seen, "judged": calibration.judged}


# In a bundle.


@pytest.fixture(scope="module")
def bundle(encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "int8.bundle"
    return export_bundle(encoder_checkpoint, folder, variants=["fp32", "int8"], weight_bits=7)


def test_a_bundle_with_an_int8_graph_serves_it_on_demand(bundle: Bundle) -> None:
    texts = [*sample_texts(), ("my card", "is lost"), ""]
    with encort.load(bundle.folder, precision="int8") as int8, encort.load(bundle.folder) as full:
        vectors, expected = int8.embed(texts), full.embed(texts)
        alone = np.concatenate([int8.embed([text]) for text in texts])
    np.testing.assert_allclose(vectors, alone, rtol=0, atol=1e-5)
    assert cosines(vectors, expected).min() > 0.97
    assert np.abs(vectors - expected).max() > 1e-4


def test_the_certificate_is_measured_on_the_int8_graph(bundle: Bundle) -> None:
    (variant,) = [variant for variant in bundle.manifest.variants if variant.name == "cpu-int8"]
    assert (variant.precision, variant.layout, variant.instruction_set) == ("int8", Layout.EQUAL_LENGTH, None)
    assert 0.97 < variant.fidelity.min_cosine < variant.fidelity.mean_cosine < 0.99999
    assert variant.fidelity.batch_difference <= 1e-5
    assert variant.fidelity.metric is None
    assert bundle.manifest.variants[0].precision == "fp32"


@pytest.mark.parametrize(("weight_bits", "instruction_set"), [(7, None), (8, "vnni")])
def test_weights_of_8_bits_need_an_instruction_set(
    encoder_checkpoint: Path,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    weight_bits: int,
    instruction_set: str | None,
) -> None:
    # The default is the number of bits that this processor multiplies exactly.
    monkeypatch.setattr("encort.export.options.has_instruction_set", lambda _: weight_bits == 8)
    monkeypatch.setattr("encort.export.exporter.fit_int8", record_bits(bits := []))
    with caplog.at_level(logging.WARNING, "encort"):
        variants = export_bundle(encoder_checkpoint, output, variants=["int8"]).manifest.variants
    assert {variant.instruction_set for variant in variants} == {instruction_set}
    assert bits == [weight_bits]
    assert "built-in texts" in caplog.text
    assert Bundle.open(output).manifest.variants == variants


def record_bits(bits: list[int]) -> Callable[..., QuantizedModel]:
    def fit(source: ExportSource, calibration: Calibration, *, weight_bits: int, **_: Any) -> QuantizedModel:
        bits.append(weight_bits)
        return quantize_model(source, calibration.judged, weight_bits=7, strengths=(0.5,))

    return fit


def test_a_model_has_all_groups_of_its_encoders(source: ExportSource, model: QuantizedModel) -> None:
    assert list(model.groups) == list(groups(source.description.encoders))
