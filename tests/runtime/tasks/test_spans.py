"""Tags of tokens become spans of the text, with exact offsets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from encort.runtime.common.arrays import FloatArray
from encort.runtime.tasks.results import Matches, Span
from encort.runtime.tasks.spans import spans
from encort.runtime.text.graphemes import Graphemes
from encort.runtime.text.token_batch import TokenBatch, TokenOffsets
from encort.runtime.text.tokenizer import Tokenizer

BIO = ["O", "B-a", "I-a", "B-b", "I-b"]


def batch(*texts: list[list[str]]) -> TokenBatch:
    """Return a batch of texts, each a list of words, each a list of tokens: `[["card"], ["num", "ber"]]`."""
    starts: list[int] = []
    ends: list[int] = []
    words: list[int] = []
    lengths: list[int] = []
    joined: list[str] = []
    for text in texts:
        position, before = 0, len(words)
        offsets = [(0, 0, -1)]
        for number, pieces in enumerate(text):
            for piece in pieces:
                offsets.append((position, position + len(piece), number))
                position += len(piece)
            position += 1
        for start, end, word in [*offsets, (0, 0, -1)]:
            starts.append(start)
            ends.append(end)
            words.append(word)
        lengths.append(len(words) - before)
        joined.append(" ".join("".join(pieces) for pieces in text))
    return batch_with_offsets(joined, lengths, starts=starts, ends=ends, words=words, sequences=np.minimum(words, 0))


def batch_with_offsets(texts: list[str], lengths: list[int], **offsets: Any) -> TokenBatch:
    zeros = np.zeros(sum(lengths), np.int64)
    return TokenBatch(
        ids=zeros,
        type_ids=zeros,
        cu_seqlens=np.cumsum([0, *lengths]),
        truncated=np.zeros(len(texts), np.bool_),
        texts=texts,
        offsets=TokenOffsets(**{name: np.array(values, np.int64) for name, values in offsets.items()}),
    )


def logits(tags: list[str], labels: list[str], probability: float = 0.9) -> FloatArray:
    """Return logits where the tag of each token has a probability, and the other tags share the rest."""
    rows = np.full((len(tags), len(labels)), (1 - probability) / (len(labels) - 1))
    rows[np.arange(len(tags)), [labels.index(tag) for tag in tags]] = probability
    return np.log(rows).astype(np.float32)


def tagged(tags: list[str], labels: list[str] = BIO) -> list[tuple[str, int, int]]:
    """Return `(label, first word, last word + 1)` of each span of a text with one token per word."""
    words = [[chr(ord("m") + number)] for number in range(len(tags))]
    (results,) = spans(logits([labels[1], *tags, labels[1]], labels), labels, batch(words))
    return [(span.label, span.start // 2, (span.end + 1) // 2) for span in results]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", []),
        ("", []),
        ("B-a", [("a", 0, 1)]),
        ("B-a I-a I-a O", [("a", 0, 3)]),
        ("O O B-a", [("a", 2, 3)]),
        ("B-a B-a I-a", [("a", 0, 1), ("a", 1, 3)]),
        ("I-a I-a", [("a", 0, 2)]),
        ("B-a I-b I-b", [("a", 0, 1), ("b", 1, 3)]),
        ("B-a B-b I-a", [("a", 0, 1), ("b", 1, 2), ("a", 2, 3)]),
        ("I-a O I-a", [("a", 0, 1), ("a", 2, 3)]),
        ("B-a O O I-a I-a", [("a", 0, 1), ("a", 3, 5)]),
    ],
)
def test_prefixes_decide_where_spans_begin(tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert tagged(tags.split()) == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("a a O a", [("a", 0, 2), ("a", 3, 4)]),
        ("a b b", [("a", 0, 1), ("b", 1, 3)]),
        ("B B I", [("B", 0, 2), ("I", 2, 3)]),
    ],
)
def test_neighbouring_words_merge_without_prefixes(tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert tagged(tags.split(), ["O", "a", "b", "B", "I"]) == expected


def test_a_model_without_the_outside_tag_tags_every_word() -> None:
    assert tagged(["x", "y", "y"], ["x", "y"]) == [("x", 0, 1), ("y", 1, 3)]


def test_a_word_has_the_tag_of_its_first_token() -> None:
    text = batch([["num", "ber", "s"], ["of"], ["my", "card"]])
    tags = ["O", "B-a", "B-b", "O", "O", "O", "B-b", "O"]
    (results,) = spans(logits(tags, BIO), BIO, text)
    assert [(span.label, span.text) for span in results] == [("a", "numbers")]


def test_special_tokens_are_in_no_span() -> None:
    text = batch([["my"], ["card"]])
    (results,) = spans(logits(["B-a", "I-a", "I-a", "I-a"], BIO), BIO, text)
    assert [(span.start, span.end, span.text) for span in results] == [(0, 7, "my card")]
    assert spans(logits(["B-a", "I-a"], BIO), BIO, batch([])) == [[]]


def test_a_span_does_not_continue_into_the_next_text() -> None:
    texts = batch([["my"], ["card"]], [], [["pin"]])
    results = spans(logits(["O", "O", "I-a", "I-a", "I-a", "I-a", "I-a", "I-a", "I-a"], BIO), BIO, texts)
    assert [[(span.start, span.text) for span in matches] for matches in results] == [[(3, "card")], [], [(0, "pin")]]


def test_the_score_is_the_mean_over_words_and_not_over_tokens() -> None:
    text = batch([["num", "ber", "s"], ["of"]])
    rows = np.concatenate(
        [logits(["O"], BIO), logits(["B-a"], BIO, 0.9), logits(["O", "O"], BIO, 0.3), logits(["I-a", "O"], BIO, 0.5)]
    )
    (((span,)),) = spans(rows, BIO, text)
    assert span.score == pytest.approx(0.7)
    assert type(span.score) is float


def test_large_logits_give_finite_scores() -> None:
    (((span,)),) = spans(logits(["O", "B-a", "O"], BIO) * np.float32(1e4), BIO, batch([["card"]]))
    assert span.score == pytest.approx(1)


def test_no_texts_give_no_spans() -> None:
    assert (
        spans(np.empty((0, 5), np.float32), BIO, batch_with_offsets([], [], starts=[], ends=[], words=[], sequences=[]))
        == []
    )


@pytest.fixture(scope="session")
def wordpiece(classifier_bundle: Path) -> Tokenizer:
    return Tokenizer((classifier_bundle / "tokenizer.json").read_bytes(), max_length=64)


@pytest.fixture(scope="session")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer like RoBERTa's with one token per byte. Several tokens of a character have the same offsets."""
    alphabet = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = tokenizers.Tokenizer(models.BPE({token: row for row, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    file = tmp_path_factory.mktemp("bytewise") / "tokenizer.json"
    tokenizer.save(str(file))
    return Tokenizer(file.read_bytes(), max_length=128)


TEXTS = [
    ("my card", ["my", "card"]),
    ("  my\t card\n\r\nlost ", ["my", "card", "lost"]),
    ("😀 my 👍🏽 card", ["😀", "my", "👍🏽", "card"]),
    ("안녕하세요 나 hello", ["안녕하세요", "나", "hello"]),
    ("Éa ÀÉ lost", ["Éa", "ÀÉ", "lost"]),
]


def every_word(tokenizer: Tokenizer, text: str) -> Matches[Span]:
    """Return the spans of a text if every token begins one. The text is the second of its batch."""
    texts = tokenizer(["my pin", text], return_offsets=True)
    return spans(logits(["B-a"] * len(texts.ids), ["O", "B-a"]), ["O", "B-a"], texts)[1]


@pytest.mark.parametrize("kind", ["wordpiece", "bytewise"])
@pytest.mark.parametrize(("text", "words"), TEXTS)
def test_spans_are_exact_parts_of_the_text(
    request: pytest.FixtureRequest, kind: str, text: str, words: list[str]
) -> None:
    results = [span for span in every_word(request.getfixturevalue(kind), text) if span.text.strip()]
    assert [span.text for span in results] == words
    assert [text[span.start : span.end] for span in results] == words
    assert [span.start for span in results] == sorted(span.start for span in results)


def test_a_combining_mark_inside_a_word_belongs_to_the_word(wordpiece: Tokenizer) -> None:
    assert [span.text for span in every_word(wordpiece, "re\u0301el card")] == ["re\u0301el", "card"]


@pytest.mark.parametrize("word", ["cafe\u0301", "गुरु", "న్న", "❤\ufe0f", "🇩🇪", "👩\u200d👧", "각"])
def test_a_span_ends_behind_the_marks_that_a_tokenizer_drops(
    wordpiece: Tokenizer, bytewise: Tokenizer, word: str
) -> None:
    for tokenizer in (wordpiece, bytewise):
        assert {span.text for span in every_word(tokenizer, f"{word} card")} == {word, "card"}


@pytest.mark.parametrize("text", ["my  card", "my\tcard", "my card ", "my\n\ncard"])
def test_white_space_is_not_a_word(bytewise: Tokenizer, text: str) -> None:
    assert [span.text for span in every_word(bytewise, text)] == ["my", "card"]


def test_the_rest_of_a_text_that_is_cut_is_not_looked_at(wordpiece: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    trim = Graphemes.__init__

    def count(self: Graphemes, text: str, *, end: int | None = None) -> None:
        trim(self, text, end=end)
        looked_at.append(len(self._text))

    monkeypatch.setattr(Graphemes, "__init__", count)
    texts = wordpiece(["caf\u00e9\u0301 " * 100_000], return_offsets=True)
    (results,) = spans(logits(["B-a"] * len(texts.ids), ["O", "B-a"]), ["O", "B-a"], texts)
    assert results[0].text == "caf\u00e9\u0301"
    assert max(looked_at) < 1000
