"""The dual encoder: encoder 1 reads (first, second), encoder 2 reads (second, first)."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import encort
from encort.export.exporter import export_bundle
from encort.export.verification.cpu_attention import open_to_verify
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.files import GraphFiles
from encort.runtime.bundle.manifest import Variant
from encort.runtime.common.errors import CheckpointError, InputTypeError, WrongTaskError
from encort.runtime.cuda import workers as cuda
from encort.runtime.engine.session import CUDA_PROVIDER, Runner

PAIRS = [
    ("my card", "is lost"),
    ("a", ""),
    ("안녕?", "hello 😀"),
    ("the card " * 60, "my pin"),
    ("pin", "the card " * 60),
]
LABELS = ["next", "far", "back"]
WIDE = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 72}
NARROW = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 56}


def probabilities(results: Sequence[Any]) -> np.ndarray:
    return np.array([list(result.scores.values()) for result in results])


@pytest.fixture(scope="module")
def make_modules(vocabulary: list[str]) -> Callable[..., torch.nn.ModuleDict]:
    """`make_modules(config, config)` makes both encoders and the classifier, with the names of a checkpoint."""

    def make(*configs: Any) -> Any:
        torch.manual_seed(5)
        modules = torch.nn.ModuleDict()
        for number, config in enumerate(configs, start=1):
            config.update({"vocab_size": len(vocabulary), "initializer_range": 0.3})
            modules[f"encoder{number}"] = transformers.AutoModel.from_config(config, attn_implementation="eager")
        modules["classifier"] = torch.nn.Linear(sum(config.hidden_size for config in configs), len(LABELS))
        for parameter in modules.parameters():
            if parameter.dim() == 1:
                # The initial 0 and 1 of biases and norms would hide mistakes.
                torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.2)
        return modules.eval()

    return make


@pytest.fixture(scope="module")
def save(
    save_tokenizer: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[torch.nn.ModuleDict], Path]:
    """`save(modules)` writes a checkpoint folder."""

    def make(modules: torch.nn.ModuleDict) -> Any:
        folder = tmp_path_factory.mktemp("dual-encoder")
        settings = {name: modules[name].config.to_dict() for name in ("encoder1", "encoder2")}
        settings |= {"model_type": "dual-encoder-next-sentence", "id2label": dict(enumerate(LABELS))}
        (folder / "config.json").write_text(json.dumps(settings))
        save_file(modules.state_dict(), folder / "model.safetensors")
        save_tokenizer(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def modules(make_modules: Callable[..., torch.nn.ModuleDict]) -> torch.nn.ModuleDict:
    other = transformers.BertConfig(**NARROW, hidden_act="gelu_new", layer_norm_eps=1e-2)
    return make_modules(transformers.BertConfig(**WIDE), other)


@pytest.fixture(scope="module")
def folder(save: Callable[[torch.nn.ModuleDict], Path], modules: torch.nn.ModuleDict) -> Path:
    return save(modules)


@pytest.fixture(scope="module")
def model(folder: Path, bundle: Callable[[Path], Path]) -> Iterator[encort.Model]:
    # The limit is the tokenizer's 64 tokens, not the 512 positions.
    with encort.load(bundle(folder)) as model:
        yield model


@torch.inference_mode()
def test_probabilities_come_from_both_poolers(folder: Path, model: encort.Model, modules: torch.nn.ModuleDict) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    options = {"padding": True, "truncation": True, "return_tensors": "pt"}
    forth = modules["encoder1"](**tokenizer(PAIRS, **options))
    back = modules["encoder2"](**tokenizer([(second, first) for first, second in PAIRS], **options))
    logits = modules["classifier"](torch.cat([forth.pooler_output, back.pooler_output], dim=1))
    results = model.classify(PAIRS)
    np.testing.assert_allclose(probabilities(results), logits.softmax(-1), atol=1e-5, rtol=0)
    assert list(results[0].scores) == LABELS
    assert [result.truncated for result in results] == [False, False, False, True, True]


def test_tokenized_pairs_give_the_same_results(model: encort.Model) -> None:
    tokenized = probabilities(model.classify(model.tokenize(PAIRS)))
    np.testing.assert_allclose(tokenized, probabilities(model.classify(PAIRS)), atol=1e-6)


def test_a_gpu_reads_both_orders(
    folder: Path, model: encort.Model, bundle: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_devices(graph: GraphFiles, variant: Variant, *_: Any, **__: Any) -> Runner:
        return open_to_verify(Bundle.open(graph.path.parent), variant)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr(cuda, "open_devices", open_devices)
    with encort.load(bundle(folder), device="cuda") as gpu:
        results = probabilities(gpu.classify(PAIRS))
    np.testing.assert_allclose(results, probabilities(model.classify(PAIRS)), atol=1e-5)


def test_the_portable_graph_reads_both_orders(folder: Path, model: encort.Model, tmp_path: Path) -> None:
    with encort.load(export_bundle(folder, tmp_path / "b", variants=["portable"]).folder) as portable:
        results = probabilities(portable.classify(PAIRS))
    np.testing.assert_allclose(results, probabilities(model.classify(PAIRS)), atol=1e-5)


def test_no_pairs_give_no_results(model: encort.Model) -> None:
    assert model.classify([]) == []


def test_a_single_text_is_refused(model: encort.Model) -> None:
    with pytest.raises(InputTypeError, match=r"text 1: .* pair"):
        model.classify([PAIRS[0], "my card"])


@pytest.mark.parametrize("method", ["embed", "embed_tokens"])
def test_embeddings_are_refused(model: encort.Model, method: str) -> None:
    with pytest.raises(WrongTaskError, match="it gives: logits"):
        getattr(model, method)(PAIRS)


@pytest.mark.parametrize("name", ["encoder1.pooler.dense.weight", "encoder2.embeddings.LayerNorm.bias"])
def test_a_missing_weight_is_refused(folder: Path, name: str, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights[name]
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=name):
        export_bundle(copy, tmp_path / "b")


@pytest.mark.parametrize(
    "config",
    [
        transformers.RobertaConfig(**NARROW, type_vocab_size=1, pad_token_id=0),
        transformers.ElectraConfig(**NARROW, embedding_size=24),
    ],
    ids=["without types", "without a pooler"],
)
def test_encoders_of_another_kind_are_exported_or_refused(
    make_modules: Callable[..., torch.nn.ModuleDict],
    save: Callable[[torch.nn.ModuleDict], Path],
    config: Any,
    tmp_path: Path,
) -> None:
    folder = save(make_modules(config, config))
    with contextlib.suppress(CheckpointError):
        assert export_bundle(folder, tmp_path / "b", variants=["fp32"]).manifest.heads


def test_a_dual_encoder_cannot_share_its_encoder_with_other_heads(
    folder: Path, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="export it alone"):
        export_bundle([checkpoint("bert", "text-classification"), folder], tmp_path / "b", variants=["fp32"])


def test_a_batch_with_one_order_only_is_refused(model: encort.Model) -> None:
    batch = dataclasses.replace(model.tokenize([("a", "my card")]), reversed=None)
    with pytest.raises(InputTypeError, match="in either order"):
        model.classify(batch)
