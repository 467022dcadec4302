"""Prompts, dimensions and precisions of embeddings, and the order of documents."""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encort
from encort.runtime.common.errors import InputError, InputTypeError
from encort.runtime.tasks.quantization import EmbeddingPrecision, quantize_embeddings
from encort.runtime.text.joined_words import JoinedWords
from encort.runtime.text.windows import Overflow

DIM = 40
TEXTS = ["hello", "my card is lost", "안녕하세요", "change the pin"]
PROMPTS = {"query": "find my ", "document": "the card: "}
PRECISIONS: list[EmbeddingPrecision] = ["int8", "uint8", "binary", "ubinary"]

LoadWith = Callable[..., encort.Model]


@pytest.fixture(scope="module")
def load_with(encoder_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadWith]:
    """`load_with(truncate_dim=8)` loads a copy of the encoder's bundle with these settings of embeddings."""
    models = []

    def load(bundle: Path = encoder_bundle, **settings: Any) -> encort.Model:
        folder = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("copy") / "copy.bundle"))
        plain = json.loads((folder / "encort.json").read_text(encoding="utf-8"))
        plain["embedding"] |= settings
        (folder / "encort.json").write_text(json.dumps(plain), encoding="utf-8")
        models.append(encort.load(folder, threads=1))
        return models[-1]

    yield load
    for model in models:
        model.close()


@pytest.fixture(scope="module")
def prompted(load_with: LoadWith) -> encort.Model:
    """A model with two prompts, one of them the default."""
    return load_with(prompts=PROMPTS, default_prompt="query")


@pytest.fixture(scope="module")
def unpooled_prompts(encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[encort.Model]:
    """A model that leaves prompts out of its embeddings."""
    from encort.export.exporter import export_bundle

    folder = Path(shutil.copytree(encoder_checkpoint, tmp_path_factory.mktemp("unpooled") / "checkpoint"))
    modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling")]
    plain = [{"idx": i, "name": i, "path": p, "type": f"sentence_transformers.models.{t}"} for i, p, t in modules]
    (folder / "modules.json").write_text(json.dumps(plain), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    settings = {"word_embedding_dimension": DIM, "pooling_mode_mean_tokens": True, "include_prompt": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    with encort.load(export_bundle(folder, folder / "b", variants=["fp32"]).folder, threads=1) as model:
        yield model


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (None, PROMPTS["query"]),
        ("query", PROMPTS["query"]),
        ("document", PROMPTS["document"]),
        ("", ""),
        (encort.Prompt("card "), "card "),
    ],
)
def test_a_prompt_is_put_before_each_text(
    prompted: encort.Model, encoder: encort.Model, prompt: Any, text: str
) -> None:
    inputs = [*TEXTS, ("my card", "is lost"), *TEXTS * 8]  # more than one thread tokenizes at a time
    expected = encoder.embed([(text + t[0], t[1]) if isinstance(t, tuple) else text + t for t in inputs])
    np.testing.assert_allclose(prompted.embed(inputs, prompt=prompt), expected, atol=1e-6)
    batch = prompted.tokenize(inputs, prompt=prompt)
    np.testing.assert_allclose(prompted.embed(batch), expected, atol=1e-6)
    batches = list(prompted.tokenize_stream(inputs, chunk=20, prompt=prompt))
    np.testing.assert_allclose(np.concatenate([prompted.embed(part) for part in batches]), expected, atol=1e-6)


def test_many_texts_have_the_prompt_too(prompted: encort.Model) -> None:
    from encort.runtime.engine.tokenizer_pool import CHUNK

    first, *_, last = prompted.embed(["hello"] * (CHUNK + 1), prompt="document")
    np.testing.assert_allclose(first, prompted.embed(["hello"], prompt="document")[0], atol=1e-6)
    np.testing.assert_allclose(last, first, atol=1e-6)


def test_a_long_text_is_read_in_windows_that_all_have_the_prompt(prompted: encort.Model) -> None:
    batch = prompted.tokenize(["card lost " * 60], prompt="query", overflow="window", stride=4)
    beginning = prompted.tokenize(["find my"], prompt="").ids[:-1].tolist()
    windows = np.split(batch.ids, batch.cu_seqlens[1:-1])
    assert len(windows) > 1
    assert all(window[: len(beginning)].tolist() == beginning for window in windows)


@pytest.mark.parametrize("method", ["embed", "tokenize"])
def test_an_unknown_prompt_is_an_error(prompted: encort.Model, method: str) -> None:
    with pytest.raises(InputError, match=r"no prompt 'querry'; this bundle has: 'query', 'document'\."):
        getattr(prompted, method)(TEXTS, prompt="querry")


def test_token_ids_have_no_prompt(prompted: encort.Model) -> None:
    ids = prompted.tokenize(["hello"], prompt="").ids.tolist()
    with pytest.raises(InputError, match="cannot be put before token ids"):
        prompted.embed([ids])
    np.testing.assert_array_equal(prompted.embed([ids], prompt=""), prompted.embed(["hello"], prompt=""))


def test_a_batch_with_another_prompt_is_an_error(prompted: encort.Model) -> None:
    batch = prompted.tokenize(TEXTS, prompt="document")
    np.testing.assert_array_equal(prompted.embed(batch, prompt="document"), prompted.embed(batch))
    with pytest.raises(InputError, match="give the prompt to tokenize"):
        prompted.embed(batch, prompt="query")


def test_heads_refuse_a_batch_with_a_prompt(load_with: LoadWith, multi_head: Path) -> None:
    texts = [(text, "my card is lost") for text in TEXTS]
    with load_with(multi_head, prompts=PROMPTS, default_prompt="query") as model:
        calls = {
            "topics": model.classify, "moods": model.classify, "stars": model.score, "follows": model.classify,
            "tags": model.tag, "answers": model.answer, "": model.logits,
        }  # fmt: skip
        for head, call in calls.items():
            inputs: Any = TEXTS if head == "tags" else texts
            with pytest.raises(InputError, match="prompt 'find my ', not ''; give prompt=\"\" to tokenize"):
                call(model.tokenize(inputs), head=head or None)
            assert len(call(model.tokenize(inputs, prompt=""), head=head or None)) == len(TEXTS)
        words = model.tokenize([JoinedWords.of(["my", "card"])])
        with pytest.raises(InputError, match="to tokenize"):
            model.tag_words(words)
        assert len(model.embed_tokens(model.tokenize(TEXTS))) == len(TEXTS)


def test_a_batch_of_another_bundle_lacks_the_length_of_its_prompt(
    encoder: encort.Model, unpooled_prompts: encort.Model
) -> None:
    with pytest.raises(InputTypeError, match="does not say where its prompt ends: give texts, or a batch of"):
        unpooled_prompts.embed(encoder.tokenize(TEXTS))
    own = unpooled_prompts.tokenize(TEXTS)
    np.testing.assert_array_equal(unpooled_prompts.embed(own), unpooled_prompts.embed(TEXTS))


def test_dimensions_are_the_leading_values(encoder: encort.Model) -> None:
    full = encoder.embed(TEXTS)
    small = encoder.embed(TEXTS, dimensions=8)
    assert (small.shape, small.dtype) == ((len(TEXTS), 8), np.float32)
    np.testing.assert_allclose(small, full[:, :8], atol=1e-7)
    np.testing.assert_array_equal(encoder.embed(TEXTS, dimensions=DIM), full)
    assert encoder.embed([], dimensions=8).shape == (0, 8)


def test_the_bundle_says_how_many_values_callers_get(load_with: LoadWith, encoder: encort.Model) -> None:
    model = load_with(truncate_dim=16)
    assert (model.dimension, encoder.dimension) == (16, DIM)
    np.testing.assert_allclose(model.embed(TEXTS), encoder.embed(TEXTS)[:, :16], atol=1e-7)
    np.testing.assert_allclose(model.embed(TEXTS, dimensions=DIM), encoder.embed(TEXTS), atol=1e-7)


@pytest.mark.parametrize(
    ("dimensions", "error", "message"),
    [
        (0, InputError, "dimensions must be at least 1, got 0"),
        (DIM + 1, InputError, f"dimensions must be at most {DIM}, got {DIM + 1}"),
        (8.0, InputTypeError, "dimensions must be a whole number"),
    ],
)
def test_wrong_dimensions_are_an_error(
    encoder: encort.Model, dimensions: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        encoder.embed(TEXTS, dimensions=dimensions)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dimensions", [None, 12])
def test_a_vector_in_few_bytes_does_not_depend_on_its_neighbours(
    encoder: encort.Model, precision: EmbeddingPrecision, dimensions: int | None
) -> None:
    together = encoder.embed(TEXTS, precision=precision, dimensions=dimensions)
    alone = [encoder.embed([text], precision=precision, dimensions=dimensions)[0] for text in TEXTS]
    # A value at the edge of a step may fall on either side of it.
    assert np.abs(together.astype(np.int64) - np.stack(alone)).max() <= (1 if "int8" in precision else 0)
    ranges = encoder.embedding_ranges[:, :dimensions]
    expected = quantize_embeddings(encoder.embed(TEXTS, dimensions=dimensions), precision, ranges)
    assert together.dtype == expected.dtype
    np.testing.assert_array_equal(together, expected)
    assert encoder.embed([], precision=precision, dimensions=dimensions).shape == (0, expected.shape[1])


def test_ranges_come_from_the_sample_texts_of_the_bundle(encoder: encort.Model) -> None:
    ranges = encoder.embedding_ranges
    assert (ranges.shape, ranges.dtype) == ((2, DIM), np.float32)
    steps = encoder.embed(TEXTS, precision="uint8").astype(np.float32)
    restored = ranges[0] + (steps + 0.5) * (ranges[1] - ranges[0]) / 255
    cosines = (restored * encoder.embed(TEXTS)).sum(axis=1) / np.linalg.norm(restored, axis=1)
    assert cosines.min() > 0.99


def test_an_unknown_precision_is_an_error(encoder: encort.Model) -> None:
    with pytest.raises(InputError, match="precision must be one of float32, float16, int8"):
        encoder.embed(TEXTS, precision="fp16")  # type: ignore[call-overload]


@pytest.mark.parametrize("overflow", ["truncate", "window"])
def test_services_give_the_results_of_the_model(prompted: encort.Model, overflow: Overflow) -> None:
    text, options = "card lost " * 60, {"prompt": "document", "dimensions": 12, "overflow": overflow}
    expected = prompted.embed([text], precision="uint8", **options)[0]

    async def embed() -> Any:
        async with prompted.serving() as service:
            return await service.embed(text, precision="uint8", **options)

    with prompted.serving() as service:
        np.testing.assert_array_equal(service.embed(text, precision="uint8", **options), expected)
        with pytest.raises(InputError, match="no prompt 'x'"):
            service.embed(text, prompt="x")
    np.testing.assert_array_equal(asyncio.run(embed()), expected)


def test_embeddings_rank_documents_with_the_prompts_of_their_kinds(prompted: encort.Model) -> None:
    documents = ["hello", "my card", "lost pin", "hello"]
    query = prompted.embed(["card"], prompt="query")[0]
    scores = (prompted.embed(documents, prompt="document") @ query).tolist()
    ranked = prompted.rank("card", documents)
    assert [item.index for item in ranked] == sorted(range(4), key=lambda index: -round(scores[index], 5))
    np.testing.assert_allclose([item.score for item in ranked], [scores[item.index] for item in ranked], atol=1e-6)
    assert prompted.rank("card", documents, top_k=2) == ranked[:2]
    assert prompted.rank("card", []) == []


@pytest.mark.parametrize("similarity", ["dot", "euclidean", "manhattan"])
def test_ranking_uses_the_similarity_of_the_bundle(load_with: LoadWith, similarity: str) -> None:
    model = load_with(similarity=similarity)
    expected = model.similarity(model.embed(["card"]), model.embed(TEXTS))[0]
    assert (expected <= 0).all() or similarity == "dot"
    np.testing.assert_allclose([item.score for item in model.rank("card", TEXTS)], np.sort(expected)[::-1], atol=1e-6)


def test_a_regression_head_ranks_pairs(multi_head: Path) -> None:
    with encort.load(multi_head, threads=1) as model:
        scores = model.score([("card", text) for text in TEXTS])
        ranked = model.rank("card", TEXTS)
        assert [item.index for item in ranked] == np.argsort(-scores, kind="stable").tolist()
        np.testing.assert_allclose([item.score for item in ranked], np.sort(scores)[::-1], atol=1e-5)


@pytest.mark.parametrize(
    ("query", "documents"),
    [(["card"], TEXTS), ("card", "hello"), ("card", [("a", "pair")]), ("card", [3]), (None, TEXTS)],
)
def test_a_query_and_documents_are_texts(encoder: encort.Model, query: Any, documents: Any) -> None:
    with pytest.raises(InputTypeError):
        encoder.rank(query, documents)


def test_a_batch_shows_the_offsets_of_its_tokens_on_request(encoder: encort.Model) -> None:
    batch = encoder.tokenize(["my lost card"] * 40, return_offsets=True)
    assert batch.offsets is not None
    assert batch.offsets.starts[:5].tolist() == [0, 0, 3, 8, 0]
    assert encoder.tokens(batch.ids[:5]) == ["[CLS]", "my", "lost", "card", "[SEP]"]
    assert encoder.decode(batch.ids[:5]) == "[CLS] my lost card [SEP]"
    assert encoder.token_ids(["my", "lost"]) == batch.ids[1:3].tolist()
    assert encoder.tokenize(["my lost card"]).offsets is None
