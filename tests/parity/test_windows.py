"""A text that is read in windows gets the merged results of eager PyTorch on the same windows."""

import json
import math
import os
import string
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from transformers.pipelines import SUPPORTED_TASKS

import encort
from encort.export.exporter import export_bundle
from encort.runtime.cli.main import group
from encort.runtime.common.errors import InputTooLongError, InputTypeError
from encort.runtime.text.windows import Overflow

Load = Callable[..., tuple[Path, encort.Model]]
Expect = Callable[..., "list[Expected]"]
Predict = Callable[..., list[dict[str, Any]]]

LIMIT = 64
LONGEST_ANSWER = 30
WORDS = ["my", "card", "is", "lost", "hello", "the", "pin", "change", "안녕", "하이", "playing", "5", ".", "played"]
STRIDES = [None, 0, 5, 8]


def long_text(seed: int, words: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


SHORT = ["my card is lost", "", "hello 안녕"]
LONG = [long_text(1, 200), long_text(2, 45), long_text(3, 90)]
TEXTS = [SHORT[0], LONG[0], SHORT[1], LONG[1], SHORT[2], LONG[2]]
SHORT_PAIRS = [("is it lost?", "hello my card is lost"), ("a", "b"), ("nothing", "")]
LONG_PAIRS = [("is it lost?", LONG[0]), ("my card", LONG[2]), ("hello", long_text(4, 300)), ("the", long_text(5, 150))]
PAIRS = [SHORT_PAIRS[0], LONG_PAIRS[0], SHORT_PAIRS[1], LONG_PAIRS[1], LONG_PAIRS[2], SHORT_PAIRS[2], LONG_PAIRS[3]]


@dataclass
class Expected:
    """Expected results of one text.

    Attributes:
        tokens: Encoding of transformers.
        rows: Tokens of every window.
        outputs: Outputs of eager PyTorch by name, for every window.
        owners: For every token of the text, the window where it counts, and its position in this window.
    """

    tokens: Any
    rows: list[list[int]]
    outputs: list[dict[str, torch.Tensor]]
    owners: list[tuple[int, int]]

    def tokenwise(self, name: str) -> torch.Tensor:
        """Return one row per token of the text, from the window where the token counts."""
        return torch.stack([self.outputs[window][name][0, position] for window, position in self.owners])

    def mean(self, name: str) -> torch.Tensor:
        """Return the mean over the windows, weighted by the tokens that count there."""
        counts = np.bincount([window for window, _ in self.owners], minlength=len(self.outputs))
        return sum(count * output[name][0] for count, output in zip(counts, self.outputs, strict=True)) / counts.sum()


@pytest.fixture(scope="module")
def expect() -> Expect:
    """`expect(checkpoint, texts, stride)` returns one `Expected` per text."""

    @torch.inference_mode()
    def run(folder: Path, texts: list[Any], stride: int | None = None) -> list[Expected]:
        name = json.loads((folder / "config.json").read_text())["architectures"][0]
        model = getattr(transformers, name).from_pretrained(folder, attn_implementation="eager").eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=10**9)
        results = []
        for text in texts:
            tokens = tokenizer([text])
            rows, owners = windows(tokens.sequence_ids(), stride)
            outputs = []
            for row in rows:
                inputs = {
                    key: torch.tensor([[tokens[key][0][token] for token in row]]) for key in tokenizer.model_input_names
                }
                output = dict(model(**inputs, output_hidden_states=True))
                output["hidden"] = output.pop("hidden_states")[-1]
                output["embedding"] = torch.nn.functional.normalize(output["hidden"].mean(1))
                outputs.append(output)
            results.append(Expected(tokens, rows, outputs, owners))
        return results

    return run


def windows(parts: list[int | None], stride: int | None) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Return the tokens of every window, and for every token of the text its `Expected.owners`."""
    if len(parts) <= LIMIT:
        return [list(range(len(parts)))], [(0, position) for position in range(len(parts))]
    last = max(part for part in parts if part is not None)
    body = [position for position, part in enumerate(parts) if part == last]
    before, after = list(range(body[0])), list(range(body[-1] + 1, len(parts)))
    room = LIMIT - len(before) - len(after)
    stride = room // 4 if stride is None else stride
    rows, firsts = [], []
    while not rows or rows[-1][-1 - len(after)] != body[-1]:
        firsts.append(len(rows) * (room - stride))
        rows.append([*before, *body[firsts[-1] : firsts[-1] + room], *after])
    owners = []
    for position in range(len(parts)):
        number = position - body[0]
        owner = max([0, *(row for row, first in enumerate(firsts) if row and number >= first + stride // 2)])
        owners.append((owner, rows[owner].index(position)))
    return rows, owners


def every_answer(expected: Expected) -> tuple[float, dict[tuple[int, int], float]]:
    """Return the null score, and the probability of every answer by its start and end in the context."""
    null_scores, scores = [], {}
    parts, offsets = expected.tokens.sequence_ids(), expected.tokens[0].offsets
    for window, (row, output) in enumerate(zip(expected.rows, expected.outputs, strict=True)):
        positions = [position for position, token in enumerate(row) if parts[token] == 1]
        starts, ends = (output[name][0, [0, *positions]].softmax(0) for name in ("start_logits", "end_logits"))
        null_scores.append(float(starts[0] * ends[0]))
        tokens = [row[position] for position in positions]
        for first in range(len(tokens)):
            for last in range(first, min(first + LONGEST_ANSWER, len(tokens))):
                # An answer with tokens that count in several windows has its best score.
                if any(expected.owners[token][0] == window for token in tokens[first : last + 1]):
                    bounds = offsets[tokens[first]][0], offsets[tokens[last]][1]
                    scores[bounds] = max(scores.get(bounds, 0), float(starts[first + 1] * ends[last + 1]))
    return min(null_scores), scores


def counts(results: Any) -> list[tuple[int, bool]]:
    return [(result.tokens, result.truncated) for result in results]


def lengths(expected: list[Expected]) -> list[int]:
    return [len(result.tokens["input_ids"][0]) for result in expected]


@pytest.fixture(scope="module")
def load(checkpoint: Callable[..., Path], bundle: Callable[[Path], Path]) -> Iterator[Load]:
    """`load(head)` returns the checkpoint, and its bundle as a model."""
    models = {}

    def make(head: str, **settings: Any) -> tuple[Path, encort.Model]:
        folder = checkpoint("bert", head, **settings)
        if folder not in models:
            models[folder] = encort.load(bundle(folder), threads=1)
        return folder, models[folder]

    yield make
    for model in models.values():
        model.close()


# Answers


def test_a_context_within_the_limit_has_the_same_answers_with_every_overflow(load: Load) -> None:
    _, model = load("question-answering")
    default, *others = [
        model.answer(SHORT_PAIRS, n_best=9, null_threshold=math.inf, overflow=overflow)
        for overflow in (None, "window", "truncate", "error")
    ]
    assert others == [default] * 3
    assert all(counts(results) == counts(default) for results in others)
    assert [truncated for _, truncated in counts(default)] == [False] * len(SHORT_PAIRS)


@pytest.mark.parametrize("stride", STRIDES)
def test_answers_from_long_contexts_are_the_answers_of_eager_pytorch_on_the_windows(
    load: Load, expect: Expect, stride: int | None
) -> None:
    folder, model = load("question-answering")
    expected = expect(folder, PAIRS, stride)
    results = model.answer(PAIRS, n_best=100_000, null_threshold=math.inf, stride=stride)
    best = model.answer(PAIRS, n_best=3, null_threshold=math.inf, overflow="window", stride=stride)
    served = model.answer(PAIRS, stride=stride)
    for (_, context), result, answers, best_three in zip(PAIRS, expected, results, best, strict=True):
        null_score, scores = every_answer(result)
        assert answers.null_score == pytest.approx(null_score, abs=1e-5)
        assert {(answer.start, answer.end): answer.score for answer in answers} == pytest.approx(scores, abs=1e-5)
        assert len(answers) == len(scores)
        assert best_three == answers[:3]
        assert all(answer.text == context[answer.start : answer.end] for answer in answers)
        assert [answer.score for answer in answers] == sorted((answer.score for answer in answers), reverse=True)
    assert [answers.no_answer for answers in served] == [
        not answers or answers.null_score > answers[0].score for answers in results
    ]
    assert counts(results) == counts(served) == [(length, False) for length in lengths(expected)]


@pytest.mark.skipif(
    "question-answering" not in SUPPORTED_TASKS, reason="transformers 5 has no pipeline for question answering"
)
def test_null_scores_and_best_answers_are_those_of_the_pipeline(load: Load) -> None:
    folder, model = load("question-answering")
    pipeline = transformers.pipeline("question-answering", str(folder), device="cpu")
    # The pipeline adds up the scores of answers with equal texts, so no word is there twice, and windows share none.
    words = [first + second for first in "abcdefghij" for second in "kl안"] + list(string.ascii_lowercase)
    pairs = [*SHORT_PAIRS[:2], ("is it lost?", " ".join(words))]
    options = {"handle_impossible_answer": True, "align_to_words": False, "max_answer_len": LONGEST_ANSWER}
    limits = {"max_seq_len": LIMIT, "doc_stride": 0, "top_k": 1500}
    for (question, context), answers in zip(pairs, model.answer(pairs, null_threshold=math.inf, stride=0), strict=True):
        expected = pipeline(question=question, context=context, **options, **limits)
        null_score = max(answer["score"] for answer in expected if not answer["answer"])
        best = next(answer for answer in expected if answer["answer"])
        assert answers.null_score == pytest.approx(null_score, abs=1e-5)
        assert [(answer.start, answer.end) for answer in answers] == [(best["start"], best["end"])]
        assert answers[0].score == pytest.approx(best["score"], abs=1e-5)


def test_windows_find_answers_behind_the_end_of_a_truncated_context(load: Load) -> None:
    _, model = load("question-answering")
    pairs = [("hello", long_text(seed, 250)) for seed in range(20)]
    truncated, whole = (
        model.answer(pairs, null_threshold=math.inf, overflow=overflow) for overflow in ("truncate", "window")
    )
    last = max(answer.end for (answer,) in truncated)
    assert sum(answer.start > last for (answer,) in whole) > len(pairs) / 3
    assert any(answer.start > len(context) * 0.8 for (answer,), (_, context) in zip(whole, pairs, strict=True))
    assert counts(truncated) == [(LIMIT, True)] * len(pairs)
    assert all(tokens > 250 and not is_truncated for tokens, is_truncated in counts(whole))


def test_a_question_over_the_limit_is_refused_by_windows_and_can_be_truncated(load: Load) -> None:
    _, model = load("question-answering")
    pairs = [SHORT_PAIRS[0], (LONG[0], "is lost")]
    with pytest.raises(InputTooLongError, match="text 1: 0 of 64 tokens are left"):
        model.answer(pairs)
    assert [truncated for _, truncated in counts(model.answer(pairs, overflow="truncate"))] == [False, True]


# Tags


def words(tokens: Any) -> Iterator[tuple[int, int, int]]:
    """Yield the first token, the start and the end of each word."""
    for word in sorted({word for word in tokens.word_ids() if word is not None}):
        positions = [position for position, number in enumerate(tokens.word_ids()) if number == word]
        yield positions[0], tokens[0].offsets[positions[0]][0], tokens[0].offsets[positions[-1]][1]


@pytest.mark.parametrize("stride", STRIDES)
def test_tags_of_long_texts_are_the_tags_of_eager_pytorch_on_the_windows(
    load: Load, expect: Expect, stride: int | None
) -> None:
    folder, model = load("token-classification")
    expected = expect(folder, TEXTS, stride)
    results = model.tag(TEXTS, overflow="window", stride=stride)
    for text, result, spans in zip(TEXTS, expected, results, strict=True):
        scores = result.tokenwise("logits").softmax(-1)
        tagged = [
            (scores[first], start, end) for first, start, end in words(result.tokens) if scores[first].argmax() > 0
        ]
        assert [(span.label, span.start, span.end, span.text) for span in spans] == [
            (" abc"[row.argmax()], start, end, text[start:end]) for row, start, end in tagged
        ]
        assert [span.score for span in spans] == pytest.approx([float(row.max()) for row, *_ in tagged], abs=1e-5)
    assert counts(results) == [(length, False) for length in lengths(expected)]


def test_windows_tag_every_part_of_a_long_text(load: Load) -> None:
    _, model = load("token-classification")
    whole, truncated = (model.tag(LONG[:1], overflow=overflow)[0] for overflow in ("window", "truncate"))
    size = len(LONG[0])
    tenths = {10 * span.start // size for span in whole}
    assert tenths == set(range(10))
    assert max(span.end for span in truncated) < size / 2
    assert (truncated.tokens, truncated.truncated, whole.truncated) == (LIMIT, True, False)
    assert whole.tokens > 200


# Means


@pytest.mark.parametrize("stride", STRIDES)
def test_embeddings_of_long_texts_are_normalized_weighted_means(load: Load, expect: Expect, stride: int | None) -> None:
    folder, model = load("encoder")
    for texts in (TEXTS, PAIRS):
        means = torch.stack([result.mean("embedding") for result in expect(folder, texts, stride)])
        embeddings = model.embed(texts, overflow="window", stride=stride)
        np.testing.assert_allclose(embeddings, torch.nn.functional.normalize(means), atol=1e-5, rtol=0)
        assert embeddings.dtype == np.float32


def test_embeddings_that_are_not_normalized_are_plain_means(
    checkpoint: Callable[..., Path], expect: Expect, tmp_path: Path
) -> None:
    folder = checkpoint("bert", "encoder")
    exported = export_bundle(folder, tmp_path / "b", variants=["fp32"], normalize=False).folder
    expected = expect(folder, TEXTS)
    for result in expected:
        for output in result.outputs:
            output["embedding"] = output["hidden"].mean(1)
    with encort.load(exported, threads=1) as model:
        embeddings = model.embed(TEXTS, overflow="window")
    means = torch.stack([result.mean("embedding") for result in expected])
    np.testing.assert_allclose(embeddings, means, atol=1e-4, rtol=0)


@pytest.mark.parametrize("stride", STRIDES)
def test_classes_of_long_texts_come_from_weighted_means_of_logits(
    load: Load, expect: Expect, stride: int | None
) -> None:
    folder, model = load("text-classification")
    for texts in (TEXTS, PAIRS):
        expected = expect(folder, texts, stride)
        logits = torch.stack([result.mean("logits") for result in expected])
        classes = model.classify(texts, overflow="window", stride=stride)
        scores = np.array([list(result.scores.values()) for result in classes])
        np.testing.assert_allclose(scores, logits.softmax(-1), atol=1e-5, rtol=0)
        assert [result.label for result in classes] == [f"class {best}" for best in logits.argmax(-1)]
        assert counts(classes) == [(length, False) for length in lengths(expected)]
        truncated = model.classify(texts, overflow="truncate")
        assert counts(truncated) == [(min(length, LIMIT), length > LIMIT) for length in lengths(expected)]
        assert counts(model.classify(texts)) == counts(truncated)


@pytest.mark.parametrize("stride", STRIDES)
def test_scores_of_long_texts_are_weighted_means(load: Load, expect: Expect, stride: int | None) -> None:
    folder, model = load("text-classification", num_labels=1, problem_type="regression")
    for texts in (TEXTS, PAIRS):
        means = torch.stack([result.mean("logits")[0] for result in expect(folder, texts, stride)])
        np.testing.assert_allclose(model.score(texts, overflow="window", stride=stride), means, atol=1e-4, rtol=0)


@pytest.mark.parametrize("stride", STRIDES)
def test_token_embeddings_of_long_texts_have_one_row_per_token(load: Load, expect: Expect, stride: int | None) -> None:
    folder, model = load("encoder")
    for texts in (TEXTS, PAIRS):
        expected = expect(folder, texts, stride)
        embeddings = model.embed_tokens(texts, overflow="window", stride=stride)
        assert [len(rows) for rows in embeddings] == lengths(expected)
        for rows, result in zip(embeddings, expected, strict=True):
            np.testing.assert_allclose(rows, result.tokenwise("hidden"), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("head", "method"),
    [("encoder", "embed"), ("text-classification", "classify"), ("token-classification", "tag")],
)
def test_tokenized_windows_give_the_results_of_their_texts(load: Load, head: str, method: str) -> None:
    _, model = load(head)
    batch = model.tokenize(TEXTS, overflow="window", stride=5)
    assert len(batch) > len(TEXTS)
    run = getattr(model, method)
    results, direct = run(batch), run(TEXTS, overflow="window", stride=5)
    if method == "embed":
        np.testing.assert_allclose(results, direct, atol=1e-6)
    else:
        assert counts(results) == counts(direct)
        assert len(results) == len(TEXTS)


def test_many_texts_in_windows_keep_their_order(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = load("text-classification")
    texts = [text for seed in range(12) for text in (long_text(seed, 10 * seed + 1), "hello", long_text(seed, 70))]
    together = model.classify(texts, overflow="window", stride=5)
    alone = [model.classify([text], overflow="window", stride=5)[0] for text in texts]
    monkeypatch.setattr("encort.runtime.task_runner.CHUNK", 7)
    monkeypatch.setitem(encort.Model.tokenize_stream.__kwdefaults__, "chunk", 7)
    in_chunks = model.classify(texts, overflow="window", stride=5)
    scores = [result.score for result in alone]
    for results in (together, in_chunks):
        assert counts(results) == counts(alone)
        np.testing.assert_allclose([result.score for result in results], scores, atol=1e-5)


def test_token_ids_cannot_be_tagged_or_answered(load: Load) -> None:
    for head, method in (("token-classification", "tag"), ("question-answering", "answer")):
        _, model = load(head)
        with pytest.raises(InputTypeError, match="lacks the offsets of its tokens"):
            getattr(model, method)([[2, 7, 8, 3]])


# The command line


@pytest.fixture
def predict(tmp_path: Path) -> Predict:
    """`predict(model, rows, "--stride", 8)` returns the records of the command for these rows of a table."""

    def run(model: encort.Model, rows: list[dict[str, str]], *options: Any) -> list[dict[str, Any]]:
        (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        arguments = ["predict", model._bundle.folder, "--input", tmp_path / "x.jsonl", *map(str, options)]
        result = CliRunner().invoke(group, [*map(os.fspath, arguments)], catch_exceptions=False)
        assert (result.exit_code, result.stderr) == (0, "")
        return [json.loads(line) for line in result.stdout.splitlines()]

    return run


@pytest.mark.parametrize(
    "options", [["--overflow", "window", "--stride", 8], ["--stride", 8], ["--overflow", "truncate"]]
)
def test_the_command_answers_from_windows(load: Load, predict: Predict, options: list[Any]) -> None:
    _, model = load("question-answering")
    rows = [{"question": question, "context": context} for question, context in PAIRS]
    named: dict[str, Any] = {"--overflow": "window", "--stride": None}
    named |= dict(zip(options[::2], options[1::2], strict=True))
    results = model.answer(PAIRS, n_best=2, overflow=named["--overflow"], stride=named["--stride"])
    records = predict(model, rows, *options, "--n-best", 2)
    assert [(record["tokens"], record["truncated"]) for record in records] == counts(results)
    for record, answers in zip(records, results, strict=True):
        assert [{**answer, "score": None} for answer in record["answers"]] == [
            {**asdict(answer), "score": None} for answer in answers
        ]
        assert [answer["score"] for answer in record["answers"]] == pytest.approx(
            [answer.score for answer in answers], abs=1e-5
        )


@pytest.mark.parametrize("overflow", [None, "truncate", "window"])
def test_the_command_tags_and_classifies_in_windows(load: Load, predict: Predict, overflow: Overflow | None) -> None:
    options = [] if overflow is None else ["--overflow", overflow, "--stride", 8]
    rows = [{"text": text} for text in TEXTS]
    _, tagger = load("token-classification")
    spans = tagger.tag(TEXTS, overflow=overflow, stride=8)
    records = predict(tagger, rows, *options)
    assert [(record["tokens"], record["truncated"]) for record in records] == counts(spans)
    assert [[span["text"] for span in record["spans"]] for record in records] == [
        [span.text for span in spans_of_text] for spans_of_text in spans
    ]
    _, classifier = load("text-classification")
    classes = classifier.classify(TEXTS, overflow=overflow, stride=8)
    records = predict(classifier, rows, *options)
    assert [(record["label"], record["tokens"], record["truncated"]) for record in records] == [
        (result.label, result.tokens, result.truncated) for result in classes
    ]
    assert [record["score"] for record in records] == pytest.approx([result.score for result in classes], abs=1e-5)
