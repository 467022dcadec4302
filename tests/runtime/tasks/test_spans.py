"""Tags of tokens become spans of the text, at their exact characters."""

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from encort.runtime.tasks.spans import spans
from encort.runtime.text.token_batch import TokenBatch, TokenOffsets
from encort.runtime.text.tokenizer import Tokenizer

BIO = ["O", "B-a", "I-a", "B-b", "I-b"]


def batch(*texts):
    """Texts of words of pieces, `[["card"], ["num", "ber"]]`, with a space between words and a special token around."""
    starts, ends, words, lengths, joined = [], [], [], [], []
    for text in texts:
        position, before = 0, len(words)
        places = [(0, 0, -1)]
        for number, pieces in enumerate(text):
            for piece in pieces:
                places.append((position, position + len(piece), number))
                position += len(piece)
            position += 1
        for start, end, word in [*places, (0, 0, -1)]:
            starts.append(start)
            ends.append(end)
            words.append(word)
        lengths.append(len(words) - before)
        joined.append(" ".join("".join(pieces) for pieces in text))
    return tokenized(joined, lengths, starts=starts, ends=ends, words=words, sequences=np.minimum(words, 0))


def tokenized(texts, lengths, **places):
    zeros = np.zeros(sum(lengths), np.int64)
    return TokenBatch(
        ids=zeros,
        type_ids=zeros,
        cu_seqlens=np.cumsum([0, *lengths]),
        truncated=np.zeros(len(texts), np.bool_),
        texts=texts,
        offsets=TokenOffsets(**{name: np.array(values, np.int64) for name, values in places.items()}),
    )


def logits(tags, labels, probability=0.9):
    """Each token's tag has that probability, the others share the rest."""
    rows = np.full((len(tags), len(labels)), (1 - probability) / (len(labels) - 1))
    rows[np.arange(len(tags)), [labels.index(tag) for tag in tags]] = probability
    return np.log(rows).astype(np.float32)


def tagged(tags, labels=BIO):
    """Label and words `(first, last + 1)` of each span, for one text of words of one token."""
    words = [[chr(ord("m") + number)] for number in range(len(tags))]
    (found,) = spans(logits([labels[1], *tags, labels[1]], labels), labels, batch(words))
    return [(span.label, span.start // 2, (span.end + 1) // 2) for span in found]


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
def test_prefixes_say_where_spans_begin(tags, expected):
    assert tagged(tags.split()) == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("a a O a", [("a", 0, 2), ("a", 3, 4)]),
        ("a b b", [("a", 0, 1), ("b", 1, 3)]),
        ("B B I", [("B", 0, 2), ("I", 2, 3)]),
    ],
)
def test_labels_without_prefixes_merge_where_they_are_neighbours(tags, expected):
    assert tagged(tags.split(), ["O", "a", "b", "B", "I"]) == expected


def test_a_model_without_an_outside_tags_every_word():
    assert tagged(["x", "y", "y"], ["x", "y"]) == [("x", 0, 1), ("y", 1, 3)]


def test_a_word_has_the_tag_of_its_first_token():
    text = batch([["num", "ber", "s"], ["of"], ["my", "card"]])
    tags = ["O", "B-a", "B-b", "O", "O", "O", "B-b", "O"]
    (found,) = spans(logits(tags, BIO), BIO, text)
    assert [(span.label, span.text) for span in found] == [("a", "numbers")]


def test_special_tokens_are_in_no_span():
    text = batch([["my"], ["card"]])
    (found,) = spans(logits(["B-a", "I-a", "I-a", "I-a"], BIO), BIO, text)
    assert [(span.start, span.end, span.text) for span in found] == [(0, 7, "my card")]
    assert spans(logits(["B-a", "I-a"], BIO), BIO, batch([])) == [[]]


def test_texts_do_not_continue_each_other():
    texts = batch([["my"], ["card"]], [], [["pin"]])
    found = spans(logits(["O", "O", "I-a", "I-a", "I-a", "I-a", "I-a", "I-a", "I-a"], BIO), BIO, texts)
    assert [[(span.start, span.text) for span in text] for text in found] == [[(3, "card")], [], [(0, "pin")]]


def test_a_score_is_the_mean_over_words_and_not_over_tokens():
    text = batch([["num", "ber", "s"], ["of"]])
    rows = np.concatenate(
        [logits(["O"], BIO), logits(["B-a"], BIO, 0.9), logits(["O", "O"], BIO, 0.3), logits(["I-a", "O"], BIO, 0.5)]
    )
    (((span,)),) = spans(rows, BIO, text)
    assert span.score == pytest.approx(0.7)
    assert type(span.score) is float


def test_far_logits_give_finite_scores():
    (((span,)),) = spans(logits(["O", "B-a", "O"], BIO) * np.float32(1e4), BIO, batch([["card"]]))
    assert span.score == pytest.approx(1)


def test_no_texts_give_no_spans():
    assert spans(np.empty((0, 5), np.float32), BIO, tokenized([], [], starts=[], ends=[], words=[], sequences=[])) == []


@pytest.fixture(scope="session")
def wordpiece(classifier_bundle):
    return Tokenizer(classifier_bundle / "tokenizer.json", max_length=64)


@pytest.fixture(scope="session")
def bytewise(tmp_path_factory):
    """RoBERTa's kind of tokenizer: a token a byte, so a character may be several tokens of one place."""
    alphabet = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = tokenizers.Tokenizer(models.BPE({token: row for row, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    file = tmp_path_factory.mktemp("bytewise") / "tokenizer.json"
    tokenizer.save(str(file))
    return Tokenizer(file, max_length=128)


TEXTS = [
    ("my card", ["my", "card"]),
    ("  my\t card\n\r\nlost ", ["my", "card", "lost"]),
    ("😀 my 👍🏽 card", ["😀", "my", "👍🏽", "card"]),
    ("안녕하세요 나 hello", ["안녕하세요", "나", "hello"]),
    ("Éa ÀÉ lost", ["Éa", "ÀÉ", "lost"]),
]


def every_word(tokenizer, text):
    """The spans of a text, second of two, whose every token begins one."""
    texts = tokenizer(["my pin", text], return_offsets=True)
    return spans(logits(["B-a"] * len(texts.ids), ["O", "B-a"]), ["O", "B-a"], texts)[1]


@pytest.mark.parametrize("kind", ["wordpiece", "bytewise"])
@pytest.mark.parametrize(("text", "words"), TEXTS)
def test_spans_are_exact_parts_of_the_text(request, kind, text, words):
    found = [span for span in every_word(request.getfixturevalue(kind), text) if span.text.strip()]
    assert [span.text for span in found] == words
    assert [text[span.start : span.end] for span in found] == words
    assert [span.start for span in found] == sorted(span.start for span in found)


def test_a_combining_mark_inside_a_word_belongs_to_it(wordpiece):
    assert [span.text for span in every_word(wordpiece, "re\u0301el card")] == ["re\u0301el", "card"]


def test_a_combining_mark_at_a_words_end_belongs_to_it(wordpiece):
    assert [span.text for span in every_word(wordpiece, "cafe\u0301 card")] == ["cafe\u0301", "card"]


@pytest.mark.parametrize("text", ["my  card", "my\tcard", "my card ", "my\n\ncard"])
def test_white_space_is_no_word(bytewise, text):
    assert [span.text for span in every_word(bytewise, text)] == ["my", "card"]
