import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tokenizers
import torch
import transformers

import encort
from encort.export import exporter
from encort.export.graph.architectures import ARCHITECTURES
from encort.export.options import PoolingName
from encort.export.verification.against_checkpoint import verify_against_checkpoint
from encort.export.verification.samples import sample_texts
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import (
    LAST_HIDDEN_STATE,
    MANIFEST_FILE,
    POOLER_OUTPUT,
    SENTENCE_EMBEDDING,
    Embedding,
    Layout,
    Pooling,
    Precision,
    Task,
)
from encort.runtime.common.errors import CheckpointError, FidelityError, OutputExistsError
from encort.runtime.engine.session import Session
from encort.runtime.verification.tolerance import error_limit

export_bundle = functools.partial(exporter.export_bundle, variants=["fp32"])

# Contents of a bundle.


@pytest.fixture(scope="session", params=["encoder", "classifier"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return Bundle.open(request.getfixturevalue(f"{request.param}_bundle"))


def test_the_folder_holds_the_files_of_the_manifest(bundle: Bundle) -> None:
    assert {path.name for path in bundle.folder.iterdir()} == {MANIFEST_FILE, *bundle.manifest.files}
    assert set(bundle.manifest.files) == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "golden.npz",
        "cpu-fp32.onnx",
        "cpu-fp32-ragged.onnx",
        "cpu-fp32.weights",
    }


def test_every_listed_file_has_its_hash(bundle: Bundle) -> None:
    for name in bundle.manifest.files:
        bundle.check(name)


def test_all_variants_share_one_file_of_weights(bundle: Bundle) -> None:
    parameters = sum(array.nbytes for array in initializers(bundle, "cpu-fp32.onnx").values())
    assert bundle.manifest.files["cpu-fp32.weights"].bytes >= 0.9 * parameters
    for variant in bundle.manifest.variants:
        assert variant.weights_file == "cpu-fp32.weights"
        assert bundle.manifest.files[variant.file].bytes < 60_000
        graph = onnx.load(bundle.folder / variant.file, load_external_data=False).graph
        outside = [entry for tensor in graph.initializer for entry in tensor.external_data]
        assert {entry.value for entry in outside if entry.key == "location"} == {"cpu-fp32.weights"}


def test_variants_hold_the_same_weights(bundle: Bundle) -> None:
    one, other = (initializers(bundle, variant.file) for variant in bundle.manifest.variants)
    for name in one.keys() & other.keys():
        np.testing.assert_array_equal(one[name], other[name])


def initializers(bundle: Bundle, file: str) -> dict[str, np.ndarray]:
    graph = onnx.load(bundle.folder / file).graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor, bundle.folder) for tensor in graph.initializer}


def test_the_manifest_gives_the_axes_of_the_graph(bundle: Bundle) -> None:
    for variant in bundle.manifest.variants:
        session = onnxruntime.InferenceSession(bundle.folder / variant.file, providers=["CPUExecutionProvider"])
        assert variant.inputs == {node.name: list(node.shape) for node in session.get_inputs()}
        assert variant.outputs == {node.name: [str(axis) for axis in node.shape] for node in session.get_outputs()}
        assert all(axes == ["batch", "sequence"] for axes in variant.inputs.values())
        assert all(axes[0] == "batch" for axes in variant.outputs.values())


def test_the_manifest_gives_the_fidelity_of_every_variant(bundle: Bundle) -> None:
    assert [variant.layout for variant in bundle.manifest.variants] == [Layout.EQUAL_LENGTH, Layout.RAGGED]
    for variant in bundle.manifest.variants:
        fidelity = variant.fidelity
        assert fidelity.max_abs_error.keys() == variant.outputs.keys()
        for name, error in fidelity.max_abs_error.items():
            assert 0 < error <= error_limit(Precision.FP32, name, bundle.manifest.embedding)
        assert 1 - 1e-6 <= fidelity.min_cosine <= fidelity.mean_cosine <= 1 + 1e-6
        assert fidelity.label_flips == (0 if bundle.manifest.heads else None)
        assert 0 <= fidelity.batch_difference <= 1e-5
        assert fidelity.texts == 50
        assert fidelity.cases > fidelity.texts


def test_the_manifest_names_the_source_of_the_bundle(classifier_bundle: Path, classifier_checkpoint: Path) -> None:
    manifest = Bundle.open(classifier_bundle).manifest
    (source,) = manifest.sources
    assert (source.model, source.architecture) == (str(classifier_checkpoint), "bert")
    assert source.revision is None
    assert manifest.tools["torch"] == torch.__version__
    assert {"encort", "transformers", "tokenizers", "onnxruntime", "python"} <= manifest.tools.keys()


@pytest.mark.parametrize("layout", [Layout.EQUAL_LENGTH, Layout.RAGGED])
def test_any_output_can_be_asked_for_alone(layout: Layout, classifier_bundle: Path) -> None:
    opened = Bundle.open(classifier_bundle)
    (variant,) = [variant for variant in opened.manifest.variants if variant.layout is layout]
    session = Session(opened.graph(variant), variant, threads=1)
    random = np.random.default_rng(0)
    inputs = {"input_ids": random.integers(0, 100, (3, 11)), "token_type_ids": random.integers(0, 2, (3, 11))}
    inputs["attention_mask"] = np.ones_like(inputs["input_ids"])
    names = [LAST_HIDDEN_STATE, POOLER_OUTPUT, SENTENCE_EMBEDDING, "logits"]
    assert set(variant.outputs) == set(names)
    for name, array in zip(names, session.run(names, inputs), strict=True):
        np.testing.assert_allclose(session.run([name], inputs)[0], array, rtol=0, atol=1e-6)


# From a checkpoint to a bundle.


def test_labels_keep_their_order_when_10_sorts_before_9(
    make_checkpoint: Callable[..., Path], output: Path, eager: Callable[..., Any]
) -> None:
    labels = [f"label {20 - number}" for number in range(12)]
    checkpoint = make_checkpoint(labels=labels, seed=5)
    assert [head.labels for head in export_bundle(checkpoint, output).manifest.heads] == [labels]
    with encort.load(output) as model:
        batch = model.tokenize(["hello", "my card is lost", "안녕하세요"])
        predicted = [result.label for result in model.classify(batch)]
    expected = [eager(checkpoint, batch.rows(np.array([index])))["logits"].argmax() for index in range(3)]
    assert predicted == [labels[index] for index in expected]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["cls", "pooler"])
def test_pooling_and_normalization_follow_the_options(
    pooling: PoolingName, normalize: bool, encoder_checkpoint: Path, output: Path, eager: Callable[..., Any]
) -> None:
    manifest = export_bundle(encoder_checkpoint, output, pooling=pooling, normalize=normalize).manifest
    assert manifest.embedding == Embedding(pooling=[Pooling(pooling)], normalize=normalize)
    with encort.load(output) as model:
        batch = model.tokenize(["my card is lost"])
        outputs = eager(encoder_checkpoint, batch.rows(np.array([0])))
        expected = outputs["pooler_output"] if pooling == "pooler" else outputs["last_hidden_state"][:, 0]
        scale = np.linalg.norm(expected) if normalize else 1
        np.testing.assert_allclose(model.embed(batch), expected / scale, rtol=0, atol=1e-5)


MODULES = [
    {"type": "sentence_transformers.models.Transformer", "path": ""},
    {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
]


def test_sentence_transformers_settings_reach_the_manifest(
    encoder_checkpoint: Path, checkpoint_copy: Callable[[Path], Path], output: Path
) -> None:
    folder = checkpoint_copy(encoder_checkpoint)
    (folder / "modules.json").write_text(json.dumps(MODULES))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    manifest = export_bundle(folder, output).manifest
    assert manifest.embedding == Embedding(pooling=[Pooling.CLS], normalize=False)
    assert manifest.max_length == 12


def test_options_replace_sentence_transformers_settings(
    encoder_checkpoint: Path, checkpoint_copy: Callable[[Path], Path], output: Path
) -> None:
    folder = checkpoint_copy(encoder_checkpoint)
    (folder / "modules.json").write_text(json.dumps(MODULES))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    manifest = export_bundle(folder, output, normalize=True, max_length=20).manifest
    assert (manifest.embedding.normalize, manifest.max_length) == (True, 20)


def test_padding_and_truncation_of_the_tokenizer_are_removed(
    encoder_checkpoint: Path, checkpoint_copy: Callable[[Path], Path], output: Path
) -> None:
    folder = checkpoint_copy(encoder_checkpoint)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=32)
    tokenizer.enable_truncation(max_length=16)
    tokenizer.save(str(folder / "tokenizer.json"))
    export_bundle(folder, output)
    saved = json.loads((output / "tokenizer.json").read_text())
    assert saved["padding"] is None
    assert saved["truncation"] is None
    with encort.load(output) as model:
        assert model.tokenize(["hello", "the card " * 100]).lengths.tolist() == [3, 64]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_checkpoints_become_float32_bundles(
    dtype: torch.dtype, classifier_checkpoint: Path, checkpoint_copy: Callable[[Path], Path], output: Path
) -> None:
    folder = checkpoint_copy(classifier_checkpoint)
    transformers.AutoModelForSequenceClassification.from_pretrained(folder).to(dtype).save_pretrained(folder)
    bundle = export_bundle(folder, output)
    assert {variant.precision for variant in bundle.manifest.variants} == {Precision.FP32}
    floats = [array for array in initializers(bundle, "cpu-fp32.onnx").values() if array.dtype.kind == "f"]
    assert {array.dtype for array in floats} == {np.dtype(np.float32)}


def test_each_label_of_a_multi_label_head_has_its_own_probability(
    make_checkpoint: Callable[..., Path], output: Path, eager: Callable[..., Any]
) -> None:
    checkpoint = make_checkpoint(labels=["a", "b", "c"], seed=12, problem_type="multi_label_classification")
    manifest = export_bundle(checkpoint, output).manifest
    assert (manifest.task, manifest.heads[0].labels) == (Task.MULTI_LABEL_CLASSIFICATION, ["a", "b", "c"])
    with encort.load(output) as model:
        batch = model.tokenize(["my card is lost"])
        logits = eager(checkpoint, batch.rows(np.array([0])))["logits"][0]
        assert list(model.classify(batch)[0].scores.values()) == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-5)


@pytest.mark.parametrize("settings", [{}, {"problem_type": "regression"}], ids=str)
def test_one_label_is_exported_as_a_regression(
    settings: dict[str, Any], make_checkpoint: Callable[..., Path], output: Path, eager: Callable[..., Any]
) -> None:
    checkpoint = make_checkpoint(labels=["stars"], seed=13, **settings)
    manifest = export_bundle(checkpoint, output).manifest
    assert (manifest.task, manifest.heads[0].labels) == (Task.TEXT_REGRESSION, ["stars"])
    with encort.load(output) as model:
        batch = model.tokenize(["my card is lost"])
        logits = eager(checkpoint, batch.rows(np.array([0])))["logits"]
        assert model.score(batch) == pytest.approx(logits[:, 0], abs=1e-4)


BERTS = {
    "no layers": {"num_hidden_layers": 0},
    "one token type": {"type_vocab_size": 1},
    "five positions": {"max_position_embeddings": 5},
    "relu": {"hidden_act": "relu"},
    "small embeddings, epsilon 1e-5": {"initializer_range": 3e-3, "layer_norm_eps": 1e-5},
}


@pytest.mark.parametrize("variants", [None, ["fp32"]], ids=["all variants", "fp32"])
@pytest.mark.parametrize("bert", BERTS.values(), ids=BERTS)
def test_unusual_encoders_are_exported(
    bert: dict[str, Any], variants: list[str] | None, make_checkpoint: Callable[..., Path], output: Path
) -> None:
    assert export_bundle(make_checkpoint(seed=6, **bert), output, variants=variants).folder == output


def test_an_encoder_without_pooler_is_exported(make_checkpoint: Callable[..., Path], output: Path) -> None:
    folder = make_checkpoint(seed=7)
    transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    variants = export_bundle(folder, output).manifest.variants
    assert all("pooler_output" not in variant.outputs for variant in variants)


def test_an_encoder_trained_to_fill_masks_is_exported_for_embeddings(
    make_checkpoint: Callable[..., Path], output: Path
) -> None:
    folder = make_checkpoint(seed=8)
    transformers.BertForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    assert export_bundle(folder, output).manifest.task is Task.FEATURE_EXTRACTION


@pytest.fixture
def other_architecture(encoder_checkpoint: Path, checkpoint_copy: Callable[[Path], Path]) -> Callable[..., Path]:
    """`other_architecture("RoFormer", **sizes)` makes a checkpoint without an authored graph."""

    def make(name: str, **sizes: int) -> Path:
        folder = checkpoint_copy(encoder_checkpoint)
        config = getattr(transformers, f"{name}Config")(vocab_size=200, **sizes)
        getattr(transformers, f"{name}Model")(config).save_pretrained(folder)
        return folder

    return make


SIZES = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 72}
OTHER_ENCODERS = {
    "RoFormer": SIZES | {"embedding_size": 24, "max_position_embeddings": 64},
    "MegatronBert": SIZES | {"max_position_embeddings": 64},
}


# Refused exports.


@pytest.mark.parametrize("variants", [["fp32"], ["int8"], ["fp32", "portable"]], ids=" ".join)
@pytest.mark.parametrize(("name", "sizes"), OTHER_ENCODERS.items(), ids=OTHER_ENCODERS)
def test_an_authored_graph_of_an_unknown_architecture_is_refused(
    name: str,
    sizes: dict[str, int],
    variants: list[str],
    other_architecture: Callable[..., Path],
    refused: Callable[..., None],
) -> None:
    known = ", ".join(ARCHITECTURES)
    refused(other_architecture(name, **sizes), f"has no authored graph.*encort authors: {known}$", variants=variants)


@pytest.mark.parametrize("setting", [{"position_embedding_type": "relative_key"}, {"hidden_act": "mish"}], ids=str)
def test_a_setting_that_the_graph_does_not_know_is_refused(
    setting: dict[str, Any], make_checkpoint: Callable[..., Path], refused: Callable[..., None]
) -> None:
    refused(make_checkpoint(**setting), "exported")


@pytest.mark.parametrize("length", [-1, 0, 65, 512])
def test_a_max_length_out_of_range_is_refused(
    length: int, encoder_checkpoint: Path, refused: Callable[..., None]
) -> None:
    refused(encoder_checkpoint, rf"max_length must be between . and .* 64.*, got {length}", max_length=length)


def test_a_max_length_without_room_for_a_text_is_refused(
    encoder_checkpoint: Path, refused: Callable[..., None]
) -> None:
    refused(encoder_checkpoint, "max_length", max_length=1)


@pytest.mark.parametrize("length", [1, 2])
def test_a_checkpoint_with_a_limit_without_room_for_a_text_is_refused(
    length: int,
    encoder_checkpoint: Path,
    checkpoint_copy: Callable[[Path], Path],
    edit_json: Callable[..., None],
    refused: Callable[..., None],
) -> None:
    folder = checkpoint_copy(encoder_checkpoint)
    edit_json(folder / "tokenizer_config.json", model_max_length=length)
    refused(folder, "max_length")


@pytest.mark.parametrize("length", [3, 64])
def test_a_max_length_at_the_edge_of_the_range_is_accepted(length: int, encoder_checkpoint: Path, output: Path) -> None:
    assert export_bundle(encoder_checkpoint, output, max_length=length).manifest.max_length == length


def test_a_tokenizer_that_gives_other_ids_than_transformers_is_refused(
    encoder_checkpoint: Path, refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_ids(self, text: Any, *others: Any, **options: Any) -> Any:
        encoding = original(self, text, *others, **options)
        encoding["input_ids"][1] += text == sample_texts()[7]
        return encoding

    original = transformers.PreTrainedTokenizerBase.__call__
    monkeypatch.setattr(transformers.PreTrainedTokenizerBase, "__call__", other_ids)
    refused(encoder_checkpoint, "tokenizer.json gives other ids than transformers")


# Replacing an earlier bundle.


def test_an_earlier_bundle_is_replaced_only_when_asked(
    encoder_checkpoint: Path, output: Path, files: Callable[[Path], Mapping[str, bytes]]
) -> None:
    export_bundle(encoder_checkpoint, output, pooling="mean")
    before = files(output)
    with pytest.raises(OutputExistsError, match="pass overwrite"):
        export_bundle(encoder_checkpoint, output, pooling="cls")
    assert files(output) == before
    replaced = export_bundle(encoder_checkpoint, output, pooling="cls", overwrite=True)
    assert replaced.manifest.embedding.pooling == [Pooling.CLS]
    assert [path.name for path in output.parent.iterdir()] == ["new.bundle"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_without_a_bundle_is_never_replaced(overwrite: bool, encoder_checkpoint: Path, output: Path) -> None:
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="will not be replaced"):
        export_bundle(encoder_checkpoint, output, overwrite=overwrite)
    assert [path.name for path in output.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_and_folders_that_are_not_there_yet_are_filled(encoder_checkpoint: Path, output: Path) -> None:
    output.mkdir()
    assert export_bundle(encoder_checkpoint, output).folder == output
    deeper = output.parent / "a" / "b" / "c.bundle"
    assert export_bundle(encoder_checkpoint, deeper).folder == deeper


# Verifying a bundle against its checkpoint.


@pytest.mark.parametrize("kind", ["encoder", "classifier"])
def test_the_right_checkpoint_verifies(kind: str, request: pytest.FixtureRequest) -> None:
    bundle = Bundle.open(request.getfixturevalue(f"{kind}_bundle"))
    checkpoint = request.getfixturevalue(f"{kind}_checkpoint")
    measured = verify_against_checkpoint(bundle, checkpoint)
    assert [variant for variant, _ in measured] == bundle.manifest.variants
    for variant, fidelity in measured:
        assert fidelity.max_abs_error == pytest.approx(variant.fidelity.max_abs_error, abs=2e-5)
        assert fidelity.cases == variant.fidelity.cases


def test_the_right_checkpoint_verifies_with_another_transformers(
    encoder_bundle: Path, encoder_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.configuration_utils.__version__", "4.57.99")
    assert verify_against_checkpoint(Bundle.open(encoder_bundle), encoder_checkpoint)


@pytest.mark.parametrize("labels", [["card_lost", "hello", "change_pin"], ["card_lost", "hello"], None], ids=str)
def test_a_checkpoint_with_other_labels_does_not_verify(
    labels: list[str] | None, classifier_bundle: Path, make_checkpoint: Callable[..., Path]
) -> None:
    with pytest.raises(CheckpointError, match="other heads or labels than the bundle"):
        verify_against_checkpoint(Bundle.open(classifier_bundle), make_checkpoint(labels=labels, seed=2))


CHANGED_ENCODERS = {
    "other weights": {"seed": 10},
    "other width": {"hidden_size": 20},
    "more layers": {"num_hidden_layers": 4},
    "fewer positions": {"max_position_embeddings": 32},
    "smaller vocabulary": {"vocab_size": 120},
    "larger vocabulary": {"vocab_size": 300},
}


@pytest.mark.parametrize("other", CHANGED_ENCODERS.values(), ids=CHANGED_ENCODERS)
def test_another_encoder_does_not_verify(
    other: dict[str, Any], encoder_bundle: Path, make_checkpoint: Callable[..., Path]
) -> None:
    with pytest.raises((CheckpointError, FidelityError)):
        verify_against_checkpoint(Bundle.open(encoder_bundle), make_checkpoint(**{"seed": 1, **other}))


def test_the_encoder_without_its_pooler_does_not_verify(
    encoder_bundle: Path, encoder_checkpoint: Path, checkpoint_copy: Callable[[Path], Path]
) -> None:
    folder = checkpoint_copy(encoder_checkpoint)
    transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    with pytest.raises((CheckpointError, FidelityError)):
        verify_against_checkpoint(Bundle.open(encoder_bundle), folder)


def test_a_failed_verification_does_not_mention_writing(
    encoder_bundle: Path, make_checkpoint: Callable[..., Path]
) -> None:
    with pytest.raises(FidelityError) as failure:
        verify_against_checkpoint(Bundle.open(encoder_bundle), make_checkpoint(seed=10))
    assert "no bundle was written" not in str(failure.value)
