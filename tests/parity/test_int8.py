"""8-bit graphs of every architecture and head: what was simulated is what they compute."""

import json

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
from encort.export.int8.model import by_sensitivity, quantize_model, within_budget
from encort.export.source.export_source import ExportSource
from encort.export.verification.oracle import Oracle
from encort.runtime.bundle.manifest import Layout
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.verification.tolerance import cosines

SMALL = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 72}
LABELS = ["next", "far", "back"]
MODELS = [
    ("roberta", "encoder"),
    ("distilbert", "text-classification"),
    ("electra", "question-answering"),
    ("mpnet", "token-classification"),
    ("dual-encoder", "next-sentence-prediction"),
]


@pytest.fixture(scope="module")
def two_encoders(vocabulary, save_tokenizer, tmp_path_factory):
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
def folder(request, checkpoint):
    architecture, head = request.param
    return request.getfixturevalue("two_encoders") if architecture == "dual-encoder" else checkpoint(architecture, head)


@pytest.fixture(scope="module")
def source(folder):
    return ExportSource.open([str(folder)])


@pytest.fixture(scope="module")
def oracle(source):
    return Oracle.of(source)


@pytest.fixture(scope="module")
def calibration(source, folder):
    tokenizer = Tokenizer(folder / "tokenizer.json", max_length=source.max_length)
    return Calibration.tokenize(source, tokenizer, None)


@pytest.fixture(scope="module")
def model(source, calibration):
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
def test_the_graph_gives_what_was_simulated(source, oracle, calibration, model, left_out, layout, tmp_path):
    encoders = source.description.encoders
    excluded = {
        "nothing": [],
        "values": [layer.query.name for encoder in encoders for layer in encoder.layers],
        "attention outputs": [encoder.layers[-1].attention_output.name for encoder in encoders],
    }[left_out]
    candidate = model.without(excluded)
    assert len(candidate.groups) == len(model.groups) - len(excluded)
    graph = candidate.author(layout, embedding=source.embedding)
    save_sharing_weights({"model.onnx": graph}, tmp_path, "model.weights")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    errors, effects = [], []
    for case in [*cases(calibration.judged), *cases(calibration.seen)]:
        plain = oracle(case)
        with simulated(oracle, candidate.groups):
            expected = oracle(case)
        found = session.run(names, {node.name: case.inputs[node.name] for node in session.get_inputs()})
        for name, array in zip(names, found, strict=True):
            size = np.linalg.norm(expected[name])
            errors.append(np.linalg.norm(array - expected[name]) / size)
            effects.append(np.linalg.norm(plain[name] - expected[name]) / size)
    # Now and then a number between two steps is rounded to the other one.
    assert np.median(errors) < 1e-4 < np.median(effects)
    assert np.max(errors) < 0.1


def test_every_head_has_vectors_to_judge_by(oracle, calibration, model):
    found = by_sensitivity(model, oracle, calibration.judged)
    assert sorted(found) == sorted(model.groups)
    assert within_budget(model, oracle, calibration.judged).groups.keys() <= model.groups.keys()


def test_a_bundle_of_two_encoders_classifies_in_eight_bits(two_encoders, tmp_path):
    folder = export_bundle(two_encoders, tmp_path / "b", variants=["fp32", "int8"], weight_bits=7).folder
    pairs = [("my card", "is lost"), ("a", ""), ("안녕?", "hello 😀"), ("the card " * 60, "my pin")]
    with encort.load(folder, precision="int8") as int8, encort.load(folder, precision="fp32") as full:
        found, expected = (
            np.array([list(result.scores.values()) for result in model.classify(pairs)]) for model in (int8, full)
        )
    assert 1e-6 < np.abs(found - expected).max() < 0.1
    assert cosines(found, expected).min() > 0.99


def test_of_several_heads_every_one_reads_the_eight_bit_encoder(checkpoint, save_tokenizer, tmp_path):
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
