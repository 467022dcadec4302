"""Every architecture with every head gives the results of eager transformers for one padded batch."""

import itertools
import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import encort

ENCODER, CLASSES, TAGS, ANSWERS = (
    "encoder",
    "text-classification",
    "token-classification",
    "question-answering",
)
TEXTS = [
    "a",
    "",
    "my card is lost",
    "change the pin, my pin is lost!",
    "안녕하세요 hello",
    "😀 unknown ✓ characters",
    "the card " * 100,
    "played\tplaying\ncafe\u0301 é",
]
PAIRS = [
    ("is it lost?", "hello my card is lost"),
    ("a", "b"),
    ("안녕?", "하이 hello 안녕하세요"),
    ("what is 😀", "the card " * 60),
    ("the card " * 60, "is lost 😀"),
    ("nothing", ""),
    ("", ""),
]
LONGEST_ANSWER = 30


def probabilities(results: Sequence[Any]) -> np.ndarray:
    return np.array([list(result.scores.values()) for result in results])


def words(tokens: Any, index: int, text: str) -> Iterator[tuple[int, int, int]]:
    """Yield, for each word, the index of its first token, its first character, and the character after its last."""
    word_ids, offsets = tokens.word_ids(index), tokens[index].offsets
    for word in sorted({word for word in word_ids if word is not None}):
        positions = [position for position, other in enumerate(word_ids) if other == word]
        end = offsets[positions[-1]][1]
        # BERT's normalizer drops combining marks, so that no token holds those of the last character.
        marks = itertools.takewhile(unicodedata.combining, text[end:])
        yield positions[0], offsets[positions[0]][0], end + len(list(marks))


def every_answer(expected: SimpleNamespace, index: int) -> tuple[float, dict[tuple[int, int], float]]:
    """Return the null score, and the probability of every answer by its start and end in the context."""
    offsets, parts = expected.tokens[index].offsets, expected.tokens.sequence_ids(index)
    context = [position for position, part in enumerate(parts) if part == 1]
    starts = expected.result.start_logits[index, [0, *context]].softmax(0)
    ends = expected.result.end_logits[index, [0, *context]].softmax(0)
    return float(starts[0] * ends[0]), {
        (offsets[context[first]][0], offsets[context[last]][1]): float(starts[first + 1] * ends[last + 1])
        for first in range(len(context))
        for last in range(first, min(first + LONGEST_ANSWER, len(context)))
    }


@pytest.mark.parametrize("head", [ENCODER, CLASSES, TAGS, ANSWERS])
def test_embeddings_are_the_normalized_mean(
    architecture: str,
    head: str,
    checkpoint: Callable[..., Path],
    bundle: Callable[[Path], Path],
    eager: Callable[..., SimpleNamespace],
) -> None:
    folder = checkpoint(architecture, head)
    expected = eager(folder, TEXTS)
    mask = expected.tokens["attention_mask"].unsqueeze(2)
    mean = torch.nn.functional.normalize((expected.hidden * mask).sum(1) / mask.sum(1), dim=1)
    with encort.load(bundle(folder)) as model:
        np.testing.assert_allclose(model.embed(TEXTS), mean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("texts", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_token_embeddings_are_the_hidden_states(
    architecture: str,
    texts: list[Any],
    checkpoint: Callable[..., Path],
    bundle: Callable[[Path], Path],
    eager: Callable[..., SimpleNamespace],
) -> None:
    folder = checkpoint(architecture, ENCODER)
    expected = eager(folder, texts)
    with encort.load(bundle(folder)) as model:
        embeddings = model.embed_tokens(texts)
    assert [len(rows) for rows in embeddings] == expected.tokens["attention_mask"].sum(1).tolist()
    for rows, hidden in zip(embeddings, expected.hidden, strict=True):
        np.testing.assert_allclose(rows, hidden[: len(rows)], atol=1e-4, rtol=0)


@pytest.mark.parametrize("texts", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_classes_have_eager_probabilities(
    architecture: str,
    texts: list[Any],
    checkpoint: Callable[..., Path],
    bundle: Callable[[Path], Path],
    eager: Callable[..., SimpleNamespace],
) -> None:
    folder = checkpoint(architecture, CLASSES)
    logits = eager(folder, texts).result.logits
    with encort.load(bundle(folder)) as model:
        results = model.classify(texts)
    np.testing.assert_allclose(probabilities(results), logits.softmax(-1), atol=1e-5, rtol=0)
    assert [result.label for result in results] == [f"class {best}" for best in logits.argmax(-1)]
    assert list(results[0].scores) == [f"class {number}" for number in range(12)]


def test_tags_come_from_the_first_token_of_each_word(
    architecture: str,
    checkpoint: Callable[..., Path],
    bundle: Callable[[Path], Path],
    eager: Callable[..., SimpleNamespace],
) -> None:
    folder = checkpoint(architecture, TAGS)
    expected = eager(folder, TEXTS)
    scores = expected.result.logits.softmax(-1)
    with encort.load(bundle(folder)) as model:
        spans = model.tag(TEXTS)
    for index, text in enumerate(TEXTS):
        # Every label is a B- tag, so that each tagged word is a span of its own.
        tagged = [(scores[index, first], start, end) for first, start, end in words(expected.tokens, index, text)]
        tagged = [word for word in tagged if word[0].argmax() > 0]
        assert [(span.label, span.start, span.end, span.text) for span in spans[index]] == [
            (" abc"[row.argmax()], start, end, text[start:end]) for row, start, end in tagged
        ]
        assert [span.score for span in spans[index]] == pytest.approx(
            [float(row.max()) for row, *_ in tagged], abs=1e-5
        )


def test_answers_have_eager_probabilities(
    architecture: str,
    checkpoint: Callable[..., Path],
    bundle: Callable[[Path], Path],
    eager: Callable[..., SimpleNamespace],
) -> None:
    folder = checkpoint(architecture, ANSWERS)
    expected = eager(folder, PAIRS)
    with encort.load(bundle(folder)) as model:
        answers_by_pair = model.answer(PAIRS, n_best=10_000, null_threshold=math.inf, overflow="truncate")
        best = model.answer(PAIRS, overflow="truncate")
    for index, answers in enumerate(answers_by_pair):
        null_score, wanted = every_answer(expected, index)
        assert {(answer.start, answer.end): answer.score for answer in answers} == pytest.approx(wanted, abs=1e-5)
        assert len(answers) == len(wanted)
        assert answers.null_score == pytest.approx(null_score, abs=1e-5)
        assert best[index] == [answer for answer in answers[:1] if answer.score > null_score]
        assert all(answer.text == PAIRS[index][1][answer.start : answer.end] for answer in answers)


def test_the_next_sentence_head_of_bert_has_eager_probabilities(
    checkpoint: Callable[..., Path], bundle: Callable[[Path], Path], eager: Callable[..., SimpleNamespace]
) -> None:
    folder = checkpoint("bert", "next-sentence-prediction")
    logits = eager(folder, PAIRS).result.logits
    with encort.load(bundle(folder)) as model:
        results = model.classify(PAIRS)
    np.testing.assert_allclose(probabilities(results), logits.softmax(-1), atol=1e-5, rtol=0)
    # BertForNextSentencePrediction: column 0 says that the second text continues the first.
    assert list(results[0].scores) == ["is_next", "not_next"]


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "camembert", "mpnet"])
def test_a_padding_token_in_the_text_shifts_no_position(
    name: str, checkpoint: Callable[..., Path], bundle: Callable[[Path], Path], eager: Callable[..., SimpleNamespace]
) -> None:
    folder, texts = checkpoint(name, ENCODER), ["hello [PAD] my card is lost"]
    with encort.load(bundle(folder)) as model:
        np.testing.assert_allclose(model.embed_tokens(texts), eager(folder, texts).hidden, atol=1e-4, rtol=0)
