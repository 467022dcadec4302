"""A bundle of a sentence-transformers folder gives the embeddings of `SentenceTransformer.encode`."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import encort
from encort.benchmarks.bundle.measurements.profile import profile
from encort.export.exporter import export_bundle
from encort.export.verification.against_checkpoint import verify_against_checkpoint
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Embedding, Pooling, Similarity
from encort.runtime.verification.golden import verify_bundle
from tests.conftest import MakeCheckpoint

sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6")
modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")

TEXTS = [
    "my card is lost",
    "hello",
    "",
    "play ing the card " * 30,
    "안녕하세요 하이 my pin",
    "change",
    "MY CARD is Lost",
]
ALL = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
SIZE = 40


def randomized(module: Any) -> Any:
    """Return a module with random weights, also those that start at exactly 0 and 1."""
    torch.manual_seed(5)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    return module


def dense(in_features: int, out_features: int, activation: torch.nn.Module, **options: Any) -> Any:
    return randomized(modules.Dense(in_features, out_features, activation_function=activation, **options))


PIPELINES: dict[str, Callable[[], list[Any]]] = {
    "all poolings": lambda: [modules.Pooling(SIZE, ALL)],
    "a layer without bias": lambda: [
        modules.Pooling(SIZE, "mean"),
        dense(SIZE, 24, torch.nn.Tanh(), bias=False),
        modules.Normalize(),
    ],
    "several modules": lambda: [
        modules.Pooling(SIZE, ("max", "cls")),
        dense(2 * SIZE, 32, torch.nn.GELU()),
        randomized(modules.LayerNorm(32)),
        modules.Dropout(0.9),
        dense(32, 32, torch.nn.Sigmoid(), use_residual=True),
        modules.Normalize(),
        modules.Dropout(0.9),
    ],
    "a normalization in between": lambda: [
        modules.Pooling(SIZE, "lasttoken"),
        modules.Normalize(),
        dense(SIZE, 56, torch.nn.Identity(), use_residual=True),
    ],
}


@pytest.fixture(scope="module")
def encoder(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint(seed=61)


def save(encoder: Path, target: Path, pipeline: list[Any], **options: Any) -> Path:
    """Save an encoder with these modules as sentence-transformers does."""
    first = modules.Transformer(str(encoder))
    sentence_transformers.SentenceTransformer(modules=[first, *pipeline], device="cpu", **options).save_pretrained(
        str(target), create_model_card=False
    )
    return target


def encode(folder: Path, texts: list[str] = TEXTS, **options: Any) -> Any:
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    return model.encode(texts, show_progress_bar=False, **options)


def embed(folder: Path, tmp_path: Path, **options: Any) -> tuple[Any, Embedding]:
    """Export a folder, and return the embeddings of its bundle and its settings of embeddings."""
    bundle = export_bundle(folder, tmp_path / "bundle", **{"variants": ["fp32"], **options})
    with encort.load(bundle.folder, precision="fp32", threads=1) as model:
        assert bundle.manifest.embedding is not None
        return model.embed(TEXTS), bundle.manifest.embedding


def assert_equal(embeddings: Any, expected: Any) -> None:
    assert embeddings.shape == expected.shape
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_saved_folder_gives_its_embeddings(name: str, encoder: Path, tmp_path: Path) -> None:
    folder = save(encoder, tmp_path / "saved", PIPELINES[name]())
    embeddings, embedding = embed(folder, tmp_path)
    assert_equal(embeddings, encode(folder))
    assert embedding.normalize == (name in ("several modules", "a layer without bias"))


def test_int8_and_packed_graphs_have_the_modules_too(encoder: Path, tmp_path: Path) -> None:
    folder = save(encoder, tmp_path / "saved", PIPELINES["several modules"]())
    # The export compares both with the modules of the folder.
    bundle = export_bundle(folder, tmp_path / "bundle", variants=["int8", "cuda-fp32", "cuda-fp16"])
    assert {variant.outputs["sentence_embedding"][1] for variant in bundle.manifest.variants} == {"32"}
    with encort.load(bundle.folder, precision="int8", threads=1) as model:
        embeddings = model.embed(TEXTS)
    assert (embeddings * encode(folder)).sum(axis=1).min() > 0.9


def test_an_old_folder_gives_its_embeddings(encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(encoder, folder / "0_Transformer")
    (folder / "1_Pooling").mkdir()
    files = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "0_Transformer/sentence_roberta_config.json": {"max_seq_length": 12, "do_lower_case": False},
        "0_Transformer/tokenizer_config.json": {
            **json.loads((encoder / "tokenizer_config.json").read_text()),
            "model_max_length": 10,
        },
        "1_Pooling/config.json": {
            "word_embedding_dimension": SIZE,
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
        "config_sentence_transformers.json": {"__version__": {"sentence_transformers": "2.2.0"}},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "README.md").write_text("---\nlicense: mit\nbase_model: org/x\n---\n")
    embeddings, embedding = embed(folder, tmp_path)
    assert_equal(embeddings, encode(folder))
    assert embedding == Embedding(pooling=[Pooling.CLS, Pooling.MEAN], normalize=True)
    (source,) = Bundle.open(tmp_path / "bundle").manifest.sources
    assert (source.license, source.base_model) == ("mit", "org/x")


def test_texts_are_lowercased_in_front_of_the_tokenizer(encoder: Path, tmp_path: Path) -> None:
    folder = save(encoder, tmp_path / "saved", [modules.Pooling(SIZE, "mean")])
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    generic = config | {"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(generic))
    cased = encode(folder)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20, "do_lower_case": true}')
    expected = encode(folder)
    assert np.abs(expected[-1] - cased[-1]).max() > 0.01
    assert_equal(embed(folder, tmp_path)[0], expected)


def test_settings_of_the_whole_model_are_in_the_manifest(encoder: Path, tmp_path: Path) -> None:
    prompts = {"query": "hello ", "document": ""}
    pipeline = [modules.Pooling(SIZE, "mean")]
    options = {"prompts": prompts, "default_prompt_name": "query", "similarity_fn_name": "dot", "truncate_dim": 16}
    folder = save(encoder, tmp_path / "saved", pipeline, **options)
    embedding = export_bundle(folder, tmp_path / "bundle", variants=["fp32"]).manifest.embedding
    assert embedding == Embedding(
        pooling=[Pooling.MEAN],
        normalize=False,
        prompts=prompts,
        default_prompt="query",
        similarity=Similarity.DOT,
        truncate_dim=16,
    )


@pytest.mark.parametrize(("limit", "expected"), [(SIZE, SIZE), (SIZE + 1, None)])
def test_a_limit_of_dimensions_above_the_size_is_no_limit(
    limit: int, expected: int | None, encoder: Path, tmp_path: Path
) -> None:
    folder = save(encoder, tmp_path / "saved", [modules.Pooling(SIZE, "mean")], truncate_dim=limit)
    embeddings, embedding = embed(folder, tmp_path)
    assert_equal(embeddings, encode(folder))
    assert embeddings.shape[1] == SIZE
    assert embedding.truncate_dim == expected


@pytest.fixture(scope="module")
def without_prompts(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder whose pooling leaves prompts out, and its bundle."""
    folder = tmp_path_factory.mktemp("without prompts")
    pipeline = [modules.Pooling(SIZE, ("cls", "mean", "weightedmean", "lasttoken"), include_prompt=False)]
    prompts = {"query": "hello my ", "document": "play"}
    save(encoder, folder / "saved", pipeline, prompts=prompts, default_prompt_name="query")
    bundle = export_bundle(folder / "saved", folder / "bundle", variants=["fp32", "portable", "cuda-fp32"])
    assert {tuple(variant.inputs["prompt_length"]) for variant in bundle.manifest.variants} == {("batch",)}
    return folder / "saved", bundle.folder


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (None, {}),
        ("document", {"prompt_name": "document"}),
        ("", {"prompt": ""}),
        (encort.Prompt("the card is "), {"prompt": "the card is "}),
        (encort.Prompt("my card " * 40), {"prompt": "my card " * 40}),
    ],
    ids=["default", "name", "none", "text", "longer than the limit"],
)
def test_prompts_are_left_out_of_the_pooling(
    prompt: str | encort.Prompt | None, expected: dict[str, str], without_prompts: tuple[Path, Path]
) -> None:
    folder, bundle = without_prompts
    with encort.load(bundle, threads=1) as model:
        assert_equal(model.embed(TEXTS, prompt=prompt), encode(folder, **expected))


def test_texts_with_different_prompts_share_the_runs_of_a_service(without_prompts: tuple[Path, Path]) -> None:
    folder, bundle = without_prompts
    names = ["query", "document", ""]
    expected = {name: encode(folder, **({"prompt_name": name} if name else {"prompt": ""})) for name in names}
    with encort.load(bundle, threads=1) as model, model.serving(max_wait_ms=200) as service:
        with ThreadPoolExecutor(len(names) * len(TEXTS)) as callers:
            calls = {
                (name, row): callers.submit(service.embed, text, prompt=name)
                for row, text in enumerate(TEXTS)
                for name in names
            }
        for (name, row), call in calls.items():
            np.testing.assert_allclose(call.result(), expected[name][row], rtol=0, atol=1e-5)
        assert model.stats().runs < len(calls)


def test_a_bundle_that_leaves_prompts_out_is_verified(without_prompts: tuple[Path, Path]) -> None:
    folder, bundle = without_prompts
    checks = verify_bundle(Bundle.open(bundle))
    assert {"cpu-fp32", "portable"} <= {check.variant for check in checks}
    assert len(verify_against_checkpoint(Bundle.open(bundle), folder)) == 4


def test_the_operators_of_a_bundle_that_leaves_prompts_out_are_timed(without_prompts: tuple[Path, Path]) -> None:
    bundle = Bundle.open(without_prompts[1])
    assert profile(bundle, bundle.manifest.variants[0], ["my card"])
