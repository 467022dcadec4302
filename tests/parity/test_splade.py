"""The sparse embeddings of SPLADE are those of eager PyTorch and of sentence-transformers."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import encort
from encort.export.exporter import export_bundle
from encort.export.graph import vocabulary
from encort.runtime.common.errors import CheckpointError, WrongTaskError

TEXTS = ["my card is lost", "hello", "change my pin change the card", "play " * 20, ""]
MODULES = "sentence_transformers.base.modules.transformer.Transformer"
EARLIER = "sentence_transformers.sparse_encoder.models.MLMTransformer"
POOLING = "sentence_transformers.sparse_encoder.models.SpladePooling"


@pytest.fixture(scope="module")
def save(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`save(architecture, **settings)` saves a SPLADE folder with these settings of its pooling."""

    def make(architecture: str = "bert", *, encoder: str = EARLIER, **settings: Any) -> Path:
        folder = tmp_path_factory.mktemp("splade") / "s"
        shutil.copytree(checkpoint(architecture, "fill-mask"), folder)
        modules = [{"type": encoder, "path": ""}, {"type": POOLING, "path": "1_SpladePooling"}]
        for number, module in enumerate(modules):
            module |= {"idx": number, "name": str(number)}
        write(folder / "modules.json", modules)
        write(folder / "1_SpladePooling" / "config.json", {"pooling_strategy": "max", **settings})
        prompts = {"prompts": {"query": "hello ", "document": ""}, "default_prompt_name": None}
        write(folder / "config_sentence_transformers.json", prompts | {"model_type": "SparseEncoder"})
        write(folder / "sentence_bert_config.json", {"max_seq_length": 33})
        return folder

    return make


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(save: Callable[..., Path]) -> Path:
    return save()


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, whose graphs are also compared with eager PyTorch by the export, in parts of few words."""
    target = tmp_path_factory.mktemp("bundles") / "b"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "COLUMNS", 17)
        return export_bundle(folder, target, variants=["fp32", "int8", "portable", "cuda-fp16"]).folder


@pytest.fixture(scope="module")
def model(bundle: Path) -> Iterator[encort.Model]:
    with encort.load(bundle, precision="fp32", threads=1) as loaded:
        yield loaded


def expected(run: SimpleNamespace, *, pooling: str = "max", logarithms: int = 1) -> list[np.ndarray]:
    """Return the weight of every word for each text, by the formula of the paper."""
    weights = torch.relu(run.result.logits)
    for _ in range(logarithms):
        weights = torch.log1p(weights)
    weights = weights * run.tokens["attention_mask"][:, :, None]
    return list((weights.amax(1) if pooling == "max" else weights.sum(1)).numpy())


def assert_equal(found: list[Any], reference: list[np.ndarray]) -> None:
    for embedding, weights in zip(found, reference, strict=True):
        dense = np.zeros_like(weights)
        dense[embedding.indices] = embedding.weights
        np.testing.assert_allclose(dense, weights, rtol=0, atol=1e-4)
        assert (embedding.weights > 0).all()
        assert (np.diff(embedding.indices) > 0).all()


def test_every_word_has_its_weight(model: encort.Model, folder: Path, eager: Callable[..., SimpleNamespace]) -> None:
    found, reference = model.embed_sparse(TEXTS), expected(eager(folder, TEXTS))
    assert_equal(found, reference)
    assert any(0 < len(embedding) < len(reference[0]) for embedding in found)
    with model.serving() as service:
        assert_equal([service.embed_sparse(text) for text in TEXTS], reference)


@pytest.mark.parametrize(
    ("architecture", "pooling", "activation"),
    [("distilbert", "sum", "relu"), ("roberta", "max", "log1p_relu"), ("modernbert", "sum", "log1p_relu")],
)
def test_other_poolings_and_architectures(
    save: Callable[..., Path],
    eager: Callable[..., SimpleNamespace],
    tmp_path: Path,
    architecture: str,
    pooling: str,
    activation: str,
) -> None:
    folder = save(architecture, encoder=MODULES, pooling_strategy=pooling, activation_function=activation)
    write(folder / "sentence_bert_config.json", {"transformer_task": "fill-mask"})
    logarithms = 2 if activation == "log1p_relu" else 1
    reference = expected(eager(folder, TEXTS), pooling=pooling, logarithms=logarithms)
    bundle = export_bundle(folder, tmp_path / "b", variants=["fp32", "portable"]).folder
    with encort.load(bundle, threads=1) as model:
        assert_equal(model.embed_sparse(TEXTS), reference)


def test_results_are_those_of_sentence_transformers(model: encort.Model, folder: Path) -> None:
    library = pytest.importorskip("sentence_transformers", minversion="5.0")
    theirs = library.SparseEncoder(str(folder), device="cpu")
    texts = [*TEXTS[:-1], "card " * 100]
    for prompt in ("query", "document"):
        reference = theirs.encode(texts, prompt_name=prompt, convert_to_sparse_tensor=False).numpy()
        found = model.embed_sparse(texts, prompt=prompt)
        assert_equal(found, list(reference))
    assert [embedding.truncated for embedding in found] == [False] * 4 + [True]


def test_documents_are_ranked_by_the_dot_product(model: encort.Model) -> None:
    documents = TEXTS[1:]
    ranked = model.rank("my card", documents)
    (query,), vectors = model.embed_sparse(["my card"], prompt="query"), model.embed_sparse(documents)
    for document in ranked:
        weights = dict(zip(vectors[document.index].indices, vectors[document.index].weights, strict=True))
        product = sum(weights.get(i, 0) * w for i, w in zip(query.indices, query.weights, strict=True))
        assert document.score == pytest.approx(product, rel=1e-5)
    assert [document.score for document in ranked] == sorted((d.score for d in ranked), reverse=True)


def test_windows_take_the_largest_weights(model: encort.Model) -> None:
    (whole,), (cut,) = model.embed_sparse(["card " * 90], overflow="window"), model.embed_sparse(["card " * 90])
    assert not whole.truncated
    assert cut.truncated
    weights = dict(zip(whole.indices, whole.weights, strict=True))
    assert all(weights[index] >= weight - 1e-5 for index, weight in zip(cut.indices, cut.weights, strict=True))
    (top,) = model.embed_sparse(["card " * 90], top_k=3)
    assert set(top.weights) == set(np.sort(cut.weights)[-3:])


def test_the_graph_holds_the_logits_of_few_words_at_a_time(bundle: Path) -> None:
    graph = onnx.load(bundle / "cpu-fp32-ragged.onnx", load_external_data=False).graph
    pooled = [node for node in graph.node if node.op_type == "ReduceMax"]
    (size,) = [output.type.tensor_type.shape.dim[1].dim_value for output in graph.output]
    assert len(pooled) == -(-size // 17)


def test_a_bundle_of_splade_has_no_dense_embeddings(model: encort.Model) -> None:
    with pytest.raises(WrongTaskError, match="sentence_embedding"):
        model.embed(TEXTS)
    assert model.embed_sparse([]) == []


@pytest.mark.parametrize("settings", [{"pooling_strategy": "mean"}, {"activation_function": "gelu"}])
def test_unknown_settings_are_refused(save: Callable[..., Path], tmp_path: Path, settings: dict[str, str]) -> None:
    with pytest.raises(CheckpointError, match="1_SpladePooling"):
        export_bundle(save(**settings), tmp_path / "b")


def test_pooled_logits_and_encoders_without_words_are_refused(save: Callable[..., Path], tmp_path: Path) -> None:
    folder = save()
    write(folder / "sentence_bert_config.json", {"transformer_task": "fill-mask"})
    (folder / "modules.json").unlink()
    with pytest.raises(CheckpointError, match="logits of words"):
        export_bundle(folder, tmp_path / "b")
    folder = save()
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", config | {"architectures": ["BertModel"]})
    with pytest.raises(CheckpointError, match="predicts none"):
        export_bundle(folder, tmp_path / "b")
