"""Every architecture with every head gives what eager transformers gives for one padded batch."""

import itertools
import unicodedata

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


def probabilities(results):
    return np.array([list(result.scores.values()) for result in results])


def words(tokens, index, text):
    """Number of each word's first token, its first character, and the character after its last."""
    word_ids, offsets = tokens.word_ids(index), tokens[index].offsets
    for word in sorted({word for word in word_ids if word is not None}):
        positions = [position for position, found in enumerate(word_ids) if found == word]
        end = offsets[positions[-1]][1]
        # BERT's normalizer drops the marks of the last character, so that no token holds them.
        marks = itertools.takewhile(unicodedata.combining, text[end:])
        yield positions[0], offsets[positions[0]][0], end + len(list(marks))


def every_answer(expected, index):
    """The probability of every answer, by its place in the context."""
    offsets, parts = expected.tokens[index].offsets, expected.tokens.sequence_ids(index)
    context = [position for position, part in enumerate(parts) if part == 1]
    starts = expected.result.start_logits[index, context].softmax(0)
    ends = expected.result.end_logits[index, context].softmax(0)
    return {
        (offsets[context[first]][0], offsets[context[last]][1]): float(starts[first] * ends[last])
        for first in range(len(context))
        for last in range(first, min(first + LONGEST_ANSWER, len(context)))
    }


@pytest.mark.parametrize("head", [ENCODER, CLASSES, TAGS, ANSWERS])
def test_embeddings_are_the_normalized_mean(architecture, head, checkpoint, bundle, eager):
    folder = checkpoint(architecture, head)
    expected = eager(folder, TEXTS)
    mask = expected.tokens["attention_mask"].unsqueeze(2)
    mean = torch.nn.functional.normalize((expected.hidden * mask).sum(1) / mask.sum(1), dim=1)
    with encort.load(bundle(folder)) as model:
        np.testing.assert_allclose(model.embed(TEXTS), mean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("texts", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_token_embeddings_are_the_hidden_states(architecture, texts, checkpoint, bundle, eager):
    folder = checkpoint(architecture, ENCODER)
    expected = eager(folder, texts)
    with encort.load(bundle(folder)) as model:
        found = model.embed_tokens(texts)
    assert [len(rows) for rows in found] == expected.tokens["attention_mask"].sum(1).tolist()
    for rows, hidden in zip(found, expected.hidden, strict=True):
        np.testing.assert_allclose(rows, hidden[: len(rows)], atol=1e-4, rtol=0)


@pytest.mark.parametrize("texts", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_classes_have_eager_probabilities(architecture, texts, checkpoint, bundle, eager):
    folder = checkpoint(architecture, CLASSES)
    logits = eager(folder, texts).result.logits
    with encort.load(bundle(folder)) as model:
        results = model.classify(texts)
    np.testing.assert_allclose(probabilities(results), logits.softmax(-1), atol=1e-5, rtol=0)
    assert [result.label for result in results] == [f"class {best}" for best in logits.argmax(-1)]
    assert list(results[0].scores) == [f"class {number}" for number in range(12)]


def test_tags_are_those_of_the_words_first_tokens(architecture, checkpoint, bundle, eager):
    folder = checkpoint(architecture, TAGS)
    expected = eager(folder, TEXTS)
    scores = expected.result.logits.softmax(-1)
    with encort.load(bundle(folder)) as model:
        found = model.tag(TEXTS)
    for index, text in enumerate(TEXTS):
        # Each label begins a span, so each word outside of none is one.
        tagged = [(scores[index, first], start, end) for first, start, end in words(expected.tokens, index, text)]
        tagged = [place for place in tagged if place[0].argmax() > 0]
        assert [(span.label, span.start, span.end, span.text) for span in found[index]] == [
            (" abc"[row.argmax()], start, end, text[start:end]) for row, start, end in tagged
        ]
        assert [span.score for span in found[index]] == pytest.approx(
            [float(row.max()) for row, *_ in tagged], abs=1e-5
        )


def test_answers_have_eager_probabilities(architecture, checkpoint, bundle, eager):
    folder = checkpoint(architecture, ANSWERS)
    expected = eager(folder, PAIRS)
    with encort.load(bundle(folder)) as model:
        found = model.answer(PAIRS, n_best=10_000, overflow="truncate")
        best = model.answer(PAIRS, overflow="truncate")
    for index, answers in enumerate(found):
        wanted = every_answer(expected, index)
        assert {(answer.start, answer.end): answer.score for answer in answers} == pytest.approx(wanted, abs=1e-5)
        assert len(answers) == len(wanted)
        assert best[index] == answers[:1]
        assert all(answer.text == PAIRS[index][1][answer.start : answer.end] for answer in answers)


def test_berts_next_sentence_head_has_eager_probabilities(checkpoint, bundle, eager):
    folder = checkpoint("bert", "next-sentence-prediction")
    logits = eager(folder, PAIRS).result.logits
    with encort.load(bundle(folder)) as model:
        results = model.classify(PAIRS)
    np.testing.assert_allclose(probabilities(results), logits.softmax(-1), atol=1e-5, rtol=0)
    # BertForNextSentencePrediction: column 0 says that the second text continues the first.
    assert list(results[0].scores) == ["is_next", "not_next"]


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "camembert", "mpnet"])
def test_a_padding_token_in_the_text_shifts_no_position(name, checkpoint, bundle, eager):
    folder, texts = checkpoint(name, ENCODER), ["hello [PAD] my card is lost"]
    with encort.load(bundle(folder)) as model:
        np.testing.assert_allclose(model.embed_tokens(texts), eager(folder, texts).hidden, atol=1e-4, rtol=0)
