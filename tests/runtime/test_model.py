"""`Model`: every kind of input, from one thread and from many."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encort
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.common.errors import (
    EncortError,
    InputError,
    InputTooLongError,
    InputTypeError,
    ModelClosedError,
    WrongTaskError,
)
from encort.runtime.tasks.classification import softmax
from encort.runtime.text.token_batch import Text

DIM = 40
METHODS = ["embed", "classify", "predict", "tokenize"]
LONG = "card " * 20_000

Texts = Sequence[Text]


@pytest.fixture(scope="module")
def texts() -> Texts:
    """Return 200 different texts of many lengths, short and long mixed, with ten pairs among them."""
    random = np.random.default_rng(0)
    words = ["card", "my", "lost", "hello", "pin", "change", "안녕", "play", "x9"]
    singles = [" ".join(random.choice(words, size)) for size in random.integers(0, 40, 190)]
    pairs = [(f"hello {number}", "pin " * number) for number in range(10)]
    return [*singles[:100], *pairs, *singles[100:]]


def test_embeddings_have_one_float32_row_per_text(classifier: encort.Model, encoder: encort.Model) -> None:
    for model in (classifier, encoder):
        embeddings = model.embed(["hello", "my card is lost"])
        assert (embeddings.shape, embeddings.dtype) == ((2, DIM), np.float32)
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_results_keep_the_order_of_the_texts(classifier: encort.Model, texts: Texts) -> None:
    alone = [classifier.classify([text])[0] for text in texts]
    together = classifier.classify(texts)
    assert [result.tokens for result in together] == [result.tokens for result in alone]
    np.testing.assert_allclose([r.score for r in together], [r.score for r in alone], atol=1e-5)
    assert len({round(result.score, 4) for result in alone}) > len(texts) / 2, "too alike to show a wrong order"


def test_shuffled_texts_give_shuffled_results(encoder: encort.Model, texts: Texts) -> None:
    order = np.random.default_rng(1).permutation(len(texts))
    shuffled = encoder.embed([texts[index] for index in order])
    np.testing.assert_allclose(shuffled, encoder.embed(texts)[order], atol=1e-6)


def test_the_same_text_twice_gives_the_same_row_twice(encoder: encort.Model) -> None:
    first, other, second = encoder.embed(["my card", "hello", "my card"])
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert np.abs(first - other).max() > 0.01


def test_one_thread_gives_the_same_results_as_four(classifier_bundle: Path, texts: Texts) -> None:
    with encort.load(classifier_bundle, threads=1) as one, encort.load(classifier_bundle, threads=4) as four:
        np.testing.assert_allclose(one.embed(texts), four.embed(texts), atol=1e-6)
        assert [r.label for r in one.classify(texts)] == [r.label for r in four.classify(texts)]


def test_concurrent_calls_give_the_same_results_as_sequential_calls(classifier: encort.Model, texts: Texts) -> None:
    slices = [texts[start::16] for start in range(16)]
    expected = [classifier.embed(part) for part in slices]
    together = threading.Barrier(8)

    def embed(part: Texts) -> FloatArray:
        together.wait(timeout=30)
        return classifier.embed(part)

    with ThreadPoolExecutor(8) as callers:
        for _ in range(3):
            for embeddings, other in zip(callers.map(embed, slices), expected, strict=True):
                np.testing.assert_array_equal(embeddings, other)


def test_no_texts_give_an_empty_result_of_the_right_shape(classifier: encort.Model, encoder: encort.Model) -> None:
    for model in (classifier, encoder):
        assert (model.embed([]).shape, model.embed([]).dtype) == ((0, DIM), np.float32)
    assert classifier.classify([]) == []
    assert classifier.predict([]) == []
    assert np.asarray(encoder.predict([])).shape == (0, DIM)


def test_an_empty_text_is_a_text(classifier: encort.Model) -> None:
    (result,) = classifier.classify([""])
    assert (result.tokens, result.truncated) == (2, False)
    assert sum(result.scores.values()) == pytest.approx(1)


def test_a_very_long_text_is_marked_as_truncated(classifier: encort.Model) -> None:
    short, long = classifier.classify(["hello", LONG])
    assert (short.tokens, short.truncated) == (3, False)
    assert (long.tokens, long.truncated) == (64, True)


def test_a_text_at_the_limit_gives_the_same_as_a_truncated_text(encoder: encort.Model) -> None:
    at_limit, truncated = encoder.embed(["card " * 62, LONG])
    np.testing.assert_allclose(at_limit, truncated, atol=1e-6)


def test_a_smaller_limit_cuts_every_text_to_it(encoder_bundle: Path, encoder: encort.Model) -> None:
    words = " ".join(["card"] * 30)
    with encort.load(encoder_bundle, max_length=7) as short:
        assert short.manifest.max_length == 7
        assert short.tokenize([words, "card"]).lengths.tolist() == [7, 3]
        expected = encoder.embed([" ".join(["card"] * 5), "card"])
        np.testing.assert_allclose(short.embed([words, "card"]), expected, atol=1e-6)
        assert pickle.loads(pickle.dumps(short)).manifest.max_length == 7
        assert short.options == encort.LoadOptions(max_length=7)


@pytest.mark.parametrize(("limit", "error"), [(65, InputError), (0, InputError), ("8", InputTypeError)])
def test_a_limit_that_a_bundle_cannot_have_is_refused(encoder_bundle: Path, limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_length must be"):
        encort.load(encoder_bundle, max_length=limit)


def test_logits_are_the_outputs_of_the_head(classifier: encort.Model, encoder: encort.Model, texts: Texts) -> None:
    logits = classifier.logits(texts)
    assert (logits.shape, logits.dtype) == ((len(texts), 3), np.float32)
    expected = [list(result.scores.values()) for result in classifier.classify(texts)]
    np.testing.assert_allclose(softmax(logits), expected, atol=1e-6)
    with pytest.raises(WrongTaskError, match="no head for text-regression or text-classification"):
        encoder.logits(texts)


@pytest.mark.parametrize("method", METHODS)
def test_overflow_error_refuses_long_texts(classifier: encort.Model, method: str) -> None:
    with pytest.raises(InputTooLongError, match="text 1 has more than 64 tokens"):
        getattr(classifier, method)(["hello", LONG], overflow="error")


def test_overflow_error_refuses_a_batch_that_was_truncated(classifier: encort.Model) -> None:
    with pytest.raises(InputTooLongError, match="text 1"):
        classifier.embed(classifier.tokenize(["short", LONG]), overflow="error")


def test_the_order_and_the_border_of_a_pair_matter(encoder: encort.Model) -> None:
    texts: Texts = [("my card", "hello"), ("hello", "my card"), "my card hello"]
    pair, swapped, joined = encoder.embed(texts)
    assert min(np.abs(pair - swapped).max(), np.abs(pair - joined).max()) > 0.01


def test_a_token_batch_gives_the_same_results_as_its_texts(classifier: encort.Model, texts: Texts) -> None:
    batch = classifier.tokenize(texts)
    assert isinstance(batch, encort.TokenBatch)
    np.testing.assert_array_equal(classifier.embed(batch), classifier.embed(texts))
    assert classifier.classify(batch) == classifier.classify(texts) == classifier.predict(batch)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "texts",
    ["one text", b"bytes", None, 3, (text for text in ["hello"]), ["hello", None], ["hello", ["a", "b"]], [("a",)]],
    ids=["str", "bytes", "None", "int", "generator", "None in a list", "list in a list", "half a pair"],
)
def test_a_value_that_is_not_a_list_of_texts_is_refused(classifier: encort.Model, method: str, texts: Any) -> None:
    with pytest.raises(InputTypeError, match="expected a"):
        getattr(classifier, method)(texts)


@pytest.mark.parametrize("method", METHODS)
def test_unpaired_surrogates_are_refused(classifier: encort.Model, method: str) -> None:
    with pytest.raises(InputError, match="unpaired surrogate"):
        getattr(classifier, method)(["hello", "\ud800"])


def test_a_failing_micro_batch_fails_its_call_but_not_the_next_call(classifier: encort.Model) -> None:
    good, bad = np.full(5, 2), np.full(6, 10_000)
    batch = encort.TokenBatch(
        ids=np.concatenate([good, bad]),
        type_ids=np.zeros(11, np.int64),
        cu_seqlens=np.array([0, 5, 11]),
        truncated=np.zeros(2, np.bool_),
    )
    with pytest.raises(EncortError, match="ONNX Runtime failed"):
        classifier.embed(batch)
    assert classifier.embed(["hello"]).shape == (1, DIM)


def test_predict_runs_the_task_of_the_bundle(classifier: encort.Model, encoder: encort.Model) -> None:
    assert classifier.predict(["hello"]) == classifier.classify(["hello"])
    np.testing.assert_array_equal(encoder.predict(["hello"]), encoder.embed(["hello"]))


@pytest.mark.parametrize("texts", [["hello"], []])
def test_classify_without_a_head_is_the_wrong_task(encoder: encort.Model, texts: list[str]) -> None:
    with pytest.raises(WrongTaskError, match=r"has no head for text-classification or .*; its heads: none"):
        encoder.classify(texts)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"stride": "x"}, "stride must be a whole number, got 'x'"),
        ({"stride": 2.0}, "stride must be a whole number"),
        ({"chunk": "x"}, "chunk must be a whole number, got 'x'"),
        ({"chunk": True}, "chunk must be a whole number"),
    ],
)
def test_an_option_of_tokenize_stream_that_is_not_a_whole_number_is_refused(
    classifier: encort.Model, option: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputTypeError, match=message):
        list(classifier.tokenize_stream(["hello"], **option))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("overflow", ["windows", "auto", ""])
def test_an_unknown_overflow_is_refused(classifier: encort.Model, method: str, overflow: str) -> None:
    with pytest.raises(InputError, match="overflow must be one of truncate, truncate_left, error, window; got"):
        getattr(classifier, method)(["hello"], overflow=overflow)


def test_a_closed_model_is_an_error(classifier_bundle: Path) -> None:
    with encort.load(classifier_bundle) as model:
        batch = model.tokenize(["hello"])
    model.close()
    for texts in (["hello"], ["hello", "my card"], [], batch):
        for method in ("embed", "classify", "predict"):
            with pytest.raises(ModelClosedError, match="load the bundle again"):
                getattr(model, method)(texts)


def test_an_error_in_the_block_closes_the_model(classifier_bundle: Path) -> None:
    with pytest.raises(KeyError), encort.load(classifier_bundle) as model:
        raise KeyError
    with pytest.raises(ModelClosedError):
        model.embed(["hello"])


@pytest.mark.parametrize("texts", [["hello"], ["hello", "my card is lost"]])
def test_closing_in_the_middle_of_a_call_is_an_error(classifier_bundle: Path, texts: list[str]) -> None:
    class Closing(encort.TokenBatch):
        @property
        def lengths(self) -> Int64Array:
            model.close()
            return super().lengths

    with encort.load(classifier_bundle, threads=2) as model:
        batch = Closing(**vars(model.tokenize(texts)))
        with pytest.raises(ModelClosedError):
            model.embed(batch)


def test_the_manifest_is_the_manifest_of_the_bundle(classifier: encort.Model, classifier_bundle: Path) -> None:
    assert classifier.manifest == encort.Bundle.open(classifier_bundle).manifest
    assert classifier.bundle == encort.Bundle.open(classifier_bundle)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told_to_load_the_model_again(classifier_bundle: Path) -> None:
    code = (
        "import os, sys, encort; model = encort.load(sys.argv[1]); model.classify(['hello', 'my card'])\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try: model.classify(['hello', 'my card'])\n"
        "    except encort.errors.EncortError as error: os._exit(7 if 'load it after' in str(error) else 8)\n"
        "    os._exit(9)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, classifier_bundle], timeout=60, check=False)
    assert done.returncode == 7
