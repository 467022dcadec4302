"""The int8 graphs of several architectures and heads compute the same as the simulation."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from safetensors.torch import save_file

import encort
from encort.export.exporter import export_bundle
from encort.export.graph.builder import save_sharing_weights
from encort.export.int8.calibration import Calibration, cases, simulated
from encort.export.int8.model import QuantizedModel, by_sensitivity, quantize_model, within_budget
from encort.export.source.export_source import ExportSource
from encort.export.verification.oracle import Oracle
from encort.runtime.bundle.manifest import Layout
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.verification.tolerance import cosines
from tests.parity.conftest import CONFIGS

SMALL = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 72}
LABELS = ["next", "far", "back"]
MODELS = [
    ("roberta", "encoder"),
    ("distilbert", "text-classification"),
    ("electra", "question-answering"),
    ("mpnet", "token-classification"),
    ("albert", "text-classification"),
    ("deberta-v3", "text-classification"),
    ("deberta-v2", "encoder"),
    ("modernbert", "token-classification"),
    ("modernbert-biased", "text-classification"),
    *((name, "text-classification") for name in ("eurobert", "gte") if name in CONFIGS),
    ("dual-encoder", "next-sentence-prediction"),
]


@pytest.fixture(scope="module")
def dual_encoder(
    vocabulary: list[str], save_tokenizer: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("dual-encoder")
    torch.manual_seed(7)
    config = transformers.BertConfig(**SMALL, vocab_size=len(vocabulary), initializer_range=0.3)
    modules = torch.nn.ModuleDict({f"encoder{number}": transformers.BertModel(config) for number in (1, 2)})
    modules["classifier"] = torch.nn.Linear(80, len(LABELS))
    for parameter in modules.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.2)
    save_file(modules.state_dict(), folder / "model.safetensors")
    settings = {"encoder1": config.to_dict(), "encoder2": config.to_dict(), "id2label": dict(enumerate(LABELS))}
    (folder / "config.json").write_text(json.dumps({**settings, "model_type": "dual-encoder-next-sentence"}))
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def folder(request: pytest.FixtureRequest, checkpoint: Callable[..., Path]) -> Path:
    architecture, head = request.param
    return request.getfixturevalue("dual_encoder") if architecture == "dual-encoder" else checkpoint(architecture, head)


@pytest.fixture(scope="module")
def source(folder: Path) -> ExportSource:
    return ExportSource.open([str(folder)])


@pytest.fixture(scope="module")
def oracle(source: ExportSource) -> Oracle:
    return Oracle.of(source)


@pytest.fixture(scope="module")
def calibration(source: ExportSource, folder: Path) -> Calibration:
    tokenizer = Tokenizer((folder / "tokenizer.json").read_bytes(), max_length=source.max_length)
    return Calibration.tokenize(source, tokenizer, None)


@pytest.fixture(scope="module")
def model(source: ExportSource, calibration: Calibration) -> QuantizedModel:
    return quantize_model(source, calibration.seen, weight_bits=7, strengths=(0.7,))


@pytest.mark.parametrize(
    ("left_out", "layout"),
    [
        ("nothing", Layout.EQUAL_LENGTH),
        ("nothing", Layout.RAGGED),
        ("values", Layout.EQUAL_LENGTH),
        ("attention outputs", Layout.EQUAL_LENGTH),
    ],
)
def test_the_graph_equals_the_simulation(
    source: ExportSource,
    oracle: Oracle,
    calibration: Calibration,
    model: QuantizedModel,
    left_out: str,
    layout: Layout,
    tmp_path: Path,
) -> None:
    encoders = source.description.encoders
    excluded = {
        "nothing": [],
        "values": [layer.attention.query.name for encoder in encoders for layer in encoder.layers],
        "attention outputs": [encoder.layers[-1].attention.output.name for encoder in encoders],
    }[left_out]
    candidate = model.without(excluded)
    assert len(candidate.groups) == len(model.groups) - len(set(excluded))
    graph = candidate.author(layout, embedding=source.embedding)
    save_sharing_weights({"model.onnx": graph}, tmp_path, "model.weights")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    errors, effects = [], []
    for case in [*cases(calibration.judged), *cases(calibration.seen)]:
        plain = oracle(case)
        with simulated(oracle, candidate.groups):
            expected = oracle(case)
        outputs = session.run(names, {node.name: case.inputs[node.name] for node in session.get_inputs()})
        for name, array in zip(names, outputs, strict=True):
            size = np.linalg.norm(expected[name])
            errors.append(np.linalg.norm(array - expected[name]) / size)
            effects.append(np.linalg.norm(plain[name] - expected[name]) / size)
    # Sometimes a number in the middle of two steps is rounded to the other step.
    assert np.median(errors) < 1e-4 < np.median(effects)
    assert np.max(errors) < 0.1


def test_sensitivity_and_budget_work_for_every_head(
    oracle: Oracle, calibration: Calibration, model: QuantizedModel
) -> None:
    names = by_sensitivity(model, oracle, calibration.judged)
    assert sorted(names) == sorted(model.groups)
    assert within_budget(model, oracle, calibration.judged).groups.keys() <= model.groups.keys()


def test_layers_with_outliers_stay_in_full_precision(
    checkpoint: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint("deberta-v3", "encoder")
    model = transformers.AutoModel.from_pretrained(folder)
    layer = model.encoder.layer[1]
    with torch.no_grad():
        # One input adds up to hundreds to every channel alike, so that no smoothing of channels helps. The next layer
        # takes their differences, which are smaller than a step of int8.
        layer.intermediate.dense.weight[:, 3] += 500
        layer.output.dense.weight -= layer.output.dense.weight.mean(dim=1, keepdim=True)
    shutil.copytree(folder, tmp_path / "outliers")
    model.save_pretrained(tmp_path / "outliers")
    bundle = export_bundle(tmp_path / "outliers", tmp_path / "b", variants=["int8"], weight_bits=7)
    assert re.search(r"int8: \d+ of 8 tensors stay in fp32, for the budget of cosines", caplog.text)
    (variant, _) = bundle.manifest.variants
    assert variant.fidelity.min_cosine > 0.98


def test_a_dual_encoder_classifies_in_int8(dual_encoder: Path, tmp_path: Path) -> None:
    pairs = [("my card", "is lost"), ("a", ""), ("안녕?", "hello 😀"), ("the card " * 60, "my pin")]
    like_them = [(first * count, second) for first, second in pairs for count in (1, 2, 3)]
    folder = export_bundle(
        dual_encoder, tmp_path / "b", variants=["fp32", "int8"], weight_bits=7, calibration=like_them
    ).folder
    with encort.load(folder, precision="int8") as int8, encort.load(folder, precision="fp32") as full:
        scores, expected = (
            np.array([list(result.scores.values()) for result in model.classify(pairs)]) for model in (int8, full)
        )
    assert 1e-6 < np.abs(scores - expected).max() < 0.1
    assert cosines(scores, expected).min() > 0.99


def test_all_heads_read_the_int8_encoder(
    checkpoint: Callable[..., Path], save_tokenizer: Callable[..., None], tmp_path: Path
) -> None:
    base = checkpoint("bert", "encoder")
    for seed, (name, loader) in enumerate([("topics", "SequenceClassification"), ("tags", "TokenClassification")]):
        torch.manual_seed(seed)
        head = getattr(transformers, f"AutoModelFor{loader}").from_pretrained(base, num_labels=3)
        head.save_pretrained(tmp_path / name)
        save_tokenizer(tmp_path / name)
    heads = [tmp_path / "topics", tmp_path / "tags"]
    bundle = export_bundle(heads, tmp_path / "b", variants=["int8"], weight_bits=7)
    variant, _ = bundle.manifest.variants
    assert {"topics.logits", "tags.logits"} < set(variant.fidelity.max_abs_error)
    assert all(error > 1e-4 for error in variant.fidelity.max_abs_error.values())
    assert variant.fidelity.min_cosine > 0.95
