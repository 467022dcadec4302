"""The three embeddings of bge-m3 are those of eager PyTorch."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import encort
from encort.export.exporter import export_bundle
from encort.runtime.common.errors import CheckpointError, InputError, WrongTaskError

TEXTS = ["my card is lost", "hello", "change my pin change the card", "play " * 20]


def save_layers(folder: Path) -> None:
    """Save the layers of the token vectors and of the weights, as pickled state dicts."""
    torch.manual_seed(3)
    for name, size in (("colbert", 24), ("sparse", 1)):
        layer = torch.nn.Linear(40, size)
        torch.nn.init.constant_(layer.bias, 1.5)  # most tokens have a weight
        torch.save(layer.state_dict(), folder / f"{name}_linear.pt")


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[..., Path]) -> Path:
    saved = checkpoint("xlm-roberta", "encoder", layer_norm_eps=2e-3)
    save_layers(saved)
    return saved


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, whose graphs are also compared with eager PyTorch by the export."""
    target = tmp_path_factory.mktemp("bundles") / "b"
    variants = ["fp32", "int8", "portable", "cuda-fp32"]
    return export_bundle(folder, target, variants=variants, pooling="cls", normalize=True).folder


@pytest.fixture(scope="module")
def ours(bundle: Path) -> Iterator[encort.Model]:
    with encort.load(bundle, precision="fp32", threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def expected(folder: Path, eager: Callable[..., SimpleNamespace]) -> list[SimpleNamespace]:
    """`dense`, `sparse` (a weight by token id) and `tokens` of each text, by the formulas of bge-m3."""
    layers = {name: torch.load(folder / f"{name}_linear.pt", weights_only=True) for name in ("colbert", "sparse")}

    def linear(name: str, hidden: torch.Tensor) -> torch.Tensor:
        return hidden @ layers[name]["weight"].T + layers[name]["bias"]

    results = []
    for text in TEXTS:
        run = eager(folder, [text])
        ids, hidden = run.tokens["input_ids"][0].tolist(), run.hidden[0]
        sparse: dict[int, float] = {}
        for token, weight in zip(ids[1:-1], torch.relu(linear("sparse", hidden))[1:-1, 0].tolist(), strict=True):
            if weight > 0:
                sparse[token] = max(weight, sparse.get(token, 0))
        dense = torch.nn.functional.normalize(hidden[0], dim=0)
        tokens = torch.nn.functional.normalize(linear("colbert", hidden)[1:], dim=1)
        results.append(SimpleNamespace(dense=dense.numpy(), sparse=sparse, tokens=tokens.numpy()))
    assert sum(len(result.sparse) for result in results) > 5
    return results


def test_one_run_gives_the_three_embeddings(ours: encort.Model, expected: list[SimpleNamespace]) -> None:
    for found, reference in zip(ours.embed_all(TEXTS), expected, strict=True):
        np.testing.assert_allclose(found.dense, reference.dense, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found.tokens, reference.tokens, rtol=0, atol=1e-5)
        assert found.sparse.indices.tolist() == sorted(reference.sparse)
        weights = [reference.sparse[token] for token in sorted(reference.sparse)]
        np.testing.assert_allclose(found.sparse.weights, weights, rtol=0, atol=1e-4)
        assert not found.sparse.truncated


def test_each_embedding_alone_is_the_same(ours: encort.Model) -> None:
    alone = zip(ours.embed(TEXTS), ours.embed_sparse(TEXTS), ours.embed_tokens(TEXTS), strict=True)
    with ours.serving() as service:
        for text, whole, (dense, sparse, tokens) in zip(TEXTS, ours.embed_all(TEXTS), alone, strict=True):
            served = service.embed_all(text)
            for other in (whole, served):
                np.testing.assert_allclose(other.dense, dense, rtol=0, atol=1e-5)
                np.testing.assert_allclose(other.tokens, tokens, rtol=0, atol=1e-5)
                np.testing.assert_array_equal(other.sparse.indices, sparse.indices)
            np.testing.assert_array_equal(service.embed_sparse(text, top_k=1).indices, _top(sparse, 1))


def test_top_k_keeps_the_largest_weights(ours: encort.Model) -> None:
    for whole, cut in zip(ours.embed_sparse(TEXTS), ours.embed_sparse(TEXTS, top_k=2), strict=True):
        np.testing.assert_array_equal(cut.indices, _top(whole, 2))
    with pytest.raises(InputError, match="top_k"):
        ours.embed_sparse(TEXTS, top_k=0)


def test_windows_give_the_tokens_of_the_whole_text(ours: encort.Model) -> None:
    (found,) = ours.embed_all(["hello card " * 60], overflow="window")
    (tokens,) = ours.embed_tokens(["hello card " * 60], overflow="window")
    assert len(found.tokens) == len(tokens) > ours.manifest.max_length
    assert np.linalg.norm(found.dense) == pytest.approx(1, abs=1e-5)
    assert ours.embed_all([]) == ours.embed_sparse([]) == ours.embed_tokens([]) == []


def test_other_models_have_no_sparse_embeddings(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    plain = export_bundle(checkpoint("xlm-roberta", "encoder"), tmp_path / "b", variants=["fp32"]).folder
    with encort.load(plain, threads=1) as model, pytest.raises(WrongTaskError, match="token_weights"):
        model.embed_all(TEXTS)


@pytest.mark.parametrize(
    "content",
    [{"weight": torch.zeros(1, 7), "bias": torch.zeros(1)}, {"weight": torch.zeros(2, 40), "bias": torch.zeros(2)}, []],
)
def test_damaged_layers_are_refused(checkpoint: Callable[..., Path], tmp_path: Path, content: Any) -> None:
    folder = checkpoint("xlm-roberta", "encoder", layer_norm_eps=4e-3)
    save_layers(folder)
    torch.save(content, folder / "sparse_linear.pt")
    with pytest.raises(CheckpointError, match="sparse_linear"):
        export_bundle(folder, tmp_path / "b", variants=["fp32"])


def test_pickled_code_is_refused_and_not_run(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder, mark = checkpoint("xlm-roberta", "encoder", layer_norm_eps=5e-3), tmp_path / "mark"
    save_layers(folder)
    torch.save({"weight": _Touch(mark)}, folder / "sparse_linear.pt")
    with pytest.raises(CheckpointError, match="sparse_linear"):
        export_bundle(folder, tmp_path / "b", variants=["fp32"])
    assert not mark.exists()


class _Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def _top(embedding: Any, count: int) -> Any:
    return np.sort(embedding.indices[np.argsort(-embedding.weights, kind="stable")[:count]])
