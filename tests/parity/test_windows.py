"""Texts past the limit, read in windows: what eager PyTorch gives window by window, put together by hand."""

import json
import os
from dataclasses import asdict, dataclass

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner

import encort
from encort.export.exporter import export_bundle
from encort.runtime.cli.main import group
from encort.runtime.common.errors import InputTooLongError, InputTypeError

LIMIT = 64
LONGEST_ANSWER = 30
WORDS = ["my", "card", "is", "lost", "hello", "the", "pin", "change", "안녕", "하이", "playing", "5", ".", "played"]
STRIDES = [None, 0, 5, 8]


def long_text(seed, words):
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


SHORT = ["my card is lost", "", "hello 안녕"]
LONG = [long_text(1, 200), long_text(2, 45), long_text(3, 90)]
TEXTS = [SHORT[0], LONG[0], SHORT[1], LONG[1], SHORT[2], LONG[2]]
SHORT_PAIRS = [("is it lost?", "hello my card is lost"), ("a", "b"), ("nothing", "")]
LONG_PAIRS = [("is it lost?", LONG[0]), ("my card", LONG[2]), ("hello", long_text(4, 300)), ("the", long_text(5, 150))]
PAIRS = [SHORT_PAIRS[0], LONG_PAIRS[0], SHORT_PAIRS[1], LONG_PAIRS[1], LONG_PAIRS[2], SHORT_PAIRS[2], LONG_PAIRS[3]]


@dataclass
class Expected:
    """One text: its tokens, and what its windows give, token by token or one a window."""

    tokens: object
    outputs: list
    owners: list

    def tokenwise(self, name):
        """A row a token of the text, out of the window where it counts."""
        return torch.stack([self.outputs[window][name][0, place] for window, place in self.owners])

    def mean(self, name):
        """The mean over the windows, weighted by the tokens that count there."""
        counts = np.bincount([window for window, _ in self.owners], minlength=len(self.outputs))
        return sum(count * output[name][0] for count, output in zip(counts, self.outputs, strict=True)) / counts.sum()


@pytest.fixture(scope="module")
def expect():
    """`expect(checkpoint, texts, stride)`: an `Expected` a text."""

    @torch.inference_mode()
    def run(folder, texts, stride=None):
        name = json.loads((folder / "config.json").read_text())["architectures"][0]
        model = getattr(transformers, name).from_pretrained(folder, attn_implementation="eager").eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=10**9)
        found = []
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
            found.append(Expected(tokens, outputs, owners))
        return found

    return run


def windows(parts, stride):
    """The tokens of every window; and for every token of the text in which window it counts, and where it is there."""
    if len(parts) <= LIMIT:
        return [list(range(len(parts)))], [(0, place) for place in range(len(parts))]
    last = max(part for part in parts if part is not None)
    body = [place for place, part in enumerate(parts) if part == last]
    before, after = list(range(body[0])), list(range(body[-1] + 1, len(parts)))
    room = LIMIT - len(before) - len(after)
    stride = room // 4 if stride is None else stride
    rows, firsts = [], []
    while not rows or rows[-1][-1 - len(after)] != body[-1]:
        firsts.append(len(rows) * (room - stride))
        rows.append([*before, *body[firsts[-1] : firsts[-1] + room], *after])
    owners = []
    for place in range(len(parts)):
        number = place - body[0]
        owner = max([0, *(row for row, first in enumerate(firsts) if row and number >= first + stride // 2)])
        owners.append((owner, rows[owner].index(place)))
    return rows, owners


def every_answer(expected, context):
    """The probability of every answer, by its place in the context."""
    tokens = [place for place, part in enumerate(expected.tokens.sequence_ids()) if part == 1]
    if not tokens:
        return {}
    starts, ends = (expected.tokenwise(name)[tokens].softmax(0) for name in ("start_logits", "end_logits"))
    offsets = [expected.tokens[0].offsets[token] for token in tokens]
    assert all(0 <= start < end <= len(context) for start, end in offsets)
    return {
        (offsets[first][0], offsets[last][1]): float(starts[first] * ends[last])
        for first in range(len(tokens))
        for last in range(first, min(first + LONGEST_ANSWER, len(tokens)))
    }


def counts(results):
    return [(result.tokens, result.truncated) for result in results]


def lengths(expected):
    return [len(one.tokens["input_ids"][0]) for one in expected]


@pytest.fixture(scope="module")
def load(checkpoint, bundle):
    """`load(head)`: the checkpoint, and its bundle as a model."""
    models = {}

    def make(head, **settings):
        folder = checkpoint("bert", head, **settings)
        if folder not in models:
            models[folder] = encort.load(bundle(folder), threads=1)
        return folder, models[folder]

    yield make
    for model in models.values():
        model.close()


# Answers


def test_contexts_that_fit_have_the_same_answers_in_windows_and_cut(load):
    _, model = load("question-answering")
    found = [
        model.answer(SHORT_PAIRS, n_best=9, overflow=overflow) for overflow in (None, "window", "truncate", "error")
    ]
    assert found[0] == found[1] == found[2] == found[3]
    assert all(counts(results) == counts(found[0]) for results in found)
    assert [truncated for _, truncated in counts(found[0])] == [False] * len(SHORT_PAIRS)


@pytest.mark.parametrize("stride", STRIDES)
def test_answers_from_long_contexts_are_those_of_the_windows(load, expect, stride):
    folder, model = load("question-answering")
    expected = expect(folder, PAIRS, stride)
    found = model.answer(PAIRS, n_best=100_000, stride=stride)
    best = model.answer(PAIRS, n_best=3, overflow="window", stride=stride)
    for (_, context), one, answers, first in zip(PAIRS, expected, found, best, strict=True):
        wanted = every_answer(one, context)
        assert {(answer.start, answer.end): answer.score for answer in answers} == pytest.approx(wanted, abs=1e-5)
        assert len(answers) == len(wanted)
        assert first == answers[:3]
        assert all(answer.text == context[answer.start : answer.end] for answer in answers)
        assert [answer.score for answer in answers] == sorted((a.score for a in answers), reverse=True)
    assert counts(found) == [(length, False) for length in lengths(expected)]


def test_answers_are_found_where_a_cut_context_has_none(load):
    _, model = load("question-answering")
    pairs = [("hello", long_text(seed, 250)) for seed in range(20)]
    cut, whole = (model.answer(pairs, overflow=overflow) for overflow in ("truncate", "window"))
    deepest = max(answer.end for (answer,) in cut)
    assert sum(answer.start > deepest for (answer,) in whole) > len(pairs) / 3
    assert any(answer.start > len(context) * 0.8 for (answer,), (_, context) in zip(whole, pairs, strict=True))
    assert counts(cut) == [(LIMIT, True)] * len(pairs)
    assert all(tokens > 250 and not truncated for tokens, truncated in counts(whole))


def test_a_question_alone_past_the_limit_is_refused_in_windows_and_cut_otherwise(load):
    _, model = load("question-answering")
    pairs = [SHORT_PAIRS[0], (LONG[0], "is lost")]
    with pytest.raises(InputTooLongError, match="text 1: 0 of 64 tokens are left"):
        model.answer(pairs)
    assert [truncated for _, truncated in counts(model.answer(pairs, overflow="truncate"))] == [False, True]


# Tags


def words(tokens):
    """Each word's first token, its first character, and the character after its last."""
    for word in sorted({word for word in tokens.word_ids() if word is not None}):
        places = [place for place, found in enumerate(tokens.word_ids()) if found == word]
        yield places[0], tokens[0].offsets[places[0]][0], tokens[0].offsets[places[-1]][1]


@pytest.mark.parametrize("stride", STRIDES)
def test_tags_of_long_texts_are_those_of_the_windows(load, expect, stride):
    folder, model = load("token-classification")
    expected = expect(folder, TEXTS, stride)
    found = model.tag(TEXTS, overflow="window", stride=stride)
    for text, one, spans in zip(TEXTS, expected, found, strict=True):
        scores = one.tokenwise("logits").softmax(-1)
        tagged = [(scores[first], start, end) for first, start, end in words(one.tokens) if scores[first].argmax() > 0]
        assert [(span.label, span.start, span.end, span.text) for span in spans] == [
            (" abc"[row.argmax()], start, end, text[start:end]) for row, start, end in tagged
        ]
        assert [span.score for span in spans] == pytest.approx([float(row.max()) for row, *_ in tagged], abs=1e-5)
    assert counts(found) == [(length, False) for length in lengths(expected)]


def test_tags_lie_over_all_of_a_long_text(load):
    _, model = load("token-classification")
    whole, cut = (model.tag(LONG[:1], overflow=overflow)[0] for overflow in ("window", "truncate"))
    size = len(LONG[0])
    tenths = {10 * span.start // size for span in whole}
    assert tenths == set(range(10))
    assert max(span.end for span in cut) < size / 2
    assert (cut.tokens, cut.truncated, whole.truncated) == (LIMIT, True, False)
    assert whole.tokens > 200


# Means


@pytest.mark.parametrize("stride", STRIDES)
def test_embeddings_of_long_texts_are_normalized_weighted_means(load, expect, stride):
    folder, model = load("encoder")
    for texts in (TEXTS, PAIRS):
        means = torch.stack([one.mean("embedding") for one in expect(folder, texts, stride)])
        found = model.embed(texts, overflow="window", stride=stride)
        np.testing.assert_allclose(found, torch.nn.functional.normalize(means), atol=1e-5, rtol=0)
        assert found.dtype == np.float32


def test_embeddings_that_are_not_normalized_stay_so_in_windows(checkpoint, expect, tmp_path):
    folder = checkpoint("bert", "encoder")
    exported = export_bundle(folder, tmp_path / "b", variants=["fp32"], normalize=False).folder
    expected = expect(folder, TEXTS)
    for one in expected:
        for output in one.outputs:
            output["embedding"] = output["hidden"].mean(1)
    with encort.load(exported, threads=1) as model:
        found = model.embed(TEXTS, overflow="window")
    np.testing.assert_allclose(found, torch.stack([one.mean("embedding") for one in expected]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("stride", STRIDES)
def test_classes_of_long_texts_come_from_weighted_means_of_logits(load, expect, stride):
    folder, model = load("text-classification")
    for texts in (TEXTS, PAIRS):
        expected = expect(folder, texts, stride)
        logits = torch.stack([one.mean("logits") for one in expected])
        found = model.classify(texts, overflow="window", stride=stride)
        scores = np.array([list(result.scores.values()) for result in found])
        np.testing.assert_allclose(scores, logits.softmax(-1), atol=1e-5, rtol=0)
        assert [result.label for result in found] == [f"class {best}" for best in logits.argmax(-1)]
        assert counts(found) == [(length, False) for length in lengths(expected)]
        cut = model.classify(texts, overflow="truncate")
        assert counts(cut) == [(min(length, LIMIT), length > LIMIT) for length in lengths(expected)]
        assert counts(model.classify(texts)) == counts(cut)


@pytest.mark.parametrize("stride", STRIDES)
def test_scores_of_long_texts_are_weighted_means(load, expect, stride):
    folder, model = load("text-classification", num_labels=1, problem_type="regression")
    for texts in (TEXTS, PAIRS):
        means = torch.stack([one.mean("logits")[0] for one in expect(folder, texts, stride)])
        np.testing.assert_allclose(model.score(texts, overflow="window", stride=stride), means, atol=1e-4, rtol=0)


@pytest.mark.parametrize("stride", STRIDES)
def test_token_embeddings_of_long_texts_have_a_row_a_token(load, expect, stride):
    folder, model = load("encoder")
    for texts in (TEXTS, PAIRS):
        expected = expect(folder, texts, stride)
        found = model.embed_tokens(texts, overflow="window", stride=stride)
        assert [len(rows) for rows in found] == lengths(expected)
        for rows, one in zip(found, expected, strict=True):
            np.testing.assert_allclose(rows, one.tokenwise("hidden"), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("head", "ask"),
    [("encoder", "embed"), ("text-classification", "classify"), ("token-classification", "tag")],
)
def test_tokenized_windows_stand_for_their_texts(load, head, ask):
    _, model = load(head)
    batch = model.tokenize(TEXTS, overflow="window", stride=5)
    assert len(batch) > len(TEXTS)
    found, direct = getattr(model, ask)(batch), getattr(model, ask)(TEXTS, overflow="window", stride=5)
    if ask == "embed":
        np.testing.assert_allclose(found, direct, atol=1e-6)
    else:
        assert counts(found) == counts(direct)
        assert len(found) == len(TEXTS)


def test_many_texts_in_windows_keep_their_order(load, monkeypatch):
    _, model = load("text-classification")
    texts = [text for seed in range(12) for text in (long_text(seed, 10 * seed + 1), "hello", long_text(seed, 70))]
    together = model.classify(texts, overflow="window", stride=5)
    alone = [model.classify([text], overflow="window", stride=5)[0] for text in texts]
    monkeypatch.setattr("encort.runtime.model.CHUNK", 7)
    in_chunks = model.classify(texts, overflow="window", stride=5)
    for found in (together, in_chunks):
        assert counts(found) == counts(alone)
        np.testing.assert_allclose([r.score for r in found], [r.score for r in alone], atol=1e-5)


def test_token_ids_cannot_be_tagged_or_answered(load):
    for head, ask in (("token-classification", "tag"), ("question-answering", "answer")):
        _, model = load(head)
        with pytest.raises(InputTypeError, match="lacks the offsets of its tokens"):
            getattr(model, ask)([[2, 7, 8, 3]])


# The command line


@pytest.fixture
def predict(tmp_path):
    """`predict(model, rows, "--stride", 8)`: the records of the command for these rows of a table."""

    def run(model, rows, *options):
        (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        arguments = ["predict", model._bundle.folder, "--input", tmp_path / "x.jsonl", *map(str, options)]
        result = CliRunner().invoke(group, [*map(os.fspath, arguments)], catch_exceptions=False)
        assert (result.exit_code, result.stderr) == (0, "")
        return [json.loads(line) for line in result.stdout.splitlines()]

    return run


@pytest.mark.parametrize(
    "options", [["--overflow", "window", "--stride", 8], ["--stride", 8], ["--overflow", "truncate"]]
)
def test_the_command_answers_from_windows(load, predict, options):
    _, model = load("question-answering")
    rows = [{"question": question, "context": context} for question, context in PAIRS]
    wanted = {"--overflow": "window", "--stride": None} | dict(zip(options[::2], options[1::2], strict=True))
    results = model.answer(PAIRS, n_best=2, overflow=wanted["--overflow"], stride=wanted["--stride"])
    found = predict(model, rows, *options, "--n-best", 2)
    assert [(record["tokens"], record["truncated"]) for record in found] == counts(results)
    for record, answers in zip(found, results, strict=True):
        assert [{**answer, "score": None} for answer in record["answers"]] == [
            {**asdict(answer), "score": None} for answer in answers
        ]
        assert [answer["score"] for answer in record["answers"]] == pytest.approx([a.score for a in answers], abs=1e-5)


@pytest.mark.parametrize("overflow", [None, "truncate", "window"])
def test_the_command_tags_and_classifies_in_windows(load, predict, overflow):
    options = [] if overflow is None else ["--overflow", overflow, "--stride", 8]
    rows = [{"text": text} for text in TEXTS]
    _, tagger = load("token-classification")
    spans = tagger.tag(TEXTS, overflow=overflow, stride=8)
    found = predict(tagger, rows, *options)
    assert [(record["tokens"], record["truncated"]) for record in found] == counts(spans)
    assert [[span["text"] for span in record["spans"]] for record in found] == [[s.text for s in one] for one in spans]
    _, classifier = load("text-classification")
    classes = classifier.classify(TEXTS, overflow=overflow, stride=8)
    found = predict(classifier, rows, *options)
    assert [(record["label"], record["tokens"], record["truncated"]) for record in found] == [
        (result.label, result.tokens, result.truncated) for result in classes
    ]
    assert [record["score"] for record in found] == pytest.approx([result.score for result in classes], abs=1e-5)
