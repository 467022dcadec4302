"""Given words have one tag each."""

import pickle

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from encort.runtime.common.aggregation import Aggregation
from encort.runtime.common.errors import InputTypeError
from encort.runtime.common.token_lists import TokenKind
from encort.runtime.tasks.word_tags import word_tags
from encort.runtime.text.joined_words import JoinedWords
from encort.runtime.text.tokenizer import Tokenizer

TAGS = ["O", "B-x", "I-x", "E-x", "S-x"]


@pytest.fixture(scope="module", params=["Metaspace", "BERT"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """A tokenizer with a token per character; with Metaspace, the space before a word is a token too."""
    characters = [chr(code) for code in range(0x21, 0x7F)] + [*"서울"]
    if request.param == "BERT":
        pieces = ["[UNK]", *characters, *(f"##{character}" for character in characters)]
        library = tokenizers.Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
        library.normalizer = normalizers.BertNormalizer(lowercase=False)
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    else:
        library = tokenizers.Tokenizer(models.Unigram([("<unk>", -9), *((p, -1) for p in ["▁", *characters])], 0))
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    return Tokenizer(library.to_str().encode(), max_length=64)


def tags_of(
    tokenizer: Tokenizer, words: list[str], tags: dict[int, str], aggregation: str = "word"
) -> list[str | None]:
    """Return the tags of words, if the tokens at some characters have these tags and the others are `O`."""
    batch = tokenizer([JoinedWords.of(words)], return_offsets=True)
    assert batch.offsets is not None
    text = str(batch.texts[0])
    starts = [start + (text[start] == " ") for start in batch.offsets.starts.tolist()]
    numbers = [TAGS.index(tags.get(start, "O")) for start in starts]
    logits = 9 * np.eye(len(TAGS), dtype=np.float32)[numbers]
    (words_of_text,) = word_tags(logits, TAGS, batch, aggregation=Aggregation(aggregation))
    assert [word.word for word in words_of_text] == words
    return [word.tag for word in words_of_text]


@pytest.mark.parametrize("aggregation", [*Aggregation])
def test_a_word_has_the_tag_of_its_token(tokenizer: Tokenizer, aggregation: Aggregation) -> None:
    assert tags_of(tokenizer, ["a", "b", "c"], {0: "B-x", 2: "E-x"}, aggregation) == ["B-x", "E-x", "O"]


def test_a_word_with_punctuation_has_the_tag_of_the_whole_span(tokenizer: Tokenizer) -> None:
    parts = {0: "B-x", 1: "I-x", 2: "I-x", 3: "E-x", 5: "B-x"}
    assert tags_of(tokenizer, ["U.S.", "b"], parts) == ["S-x", "B-x"]
    assert tags_of(tokenizer, ["U.S.", "b"], parts, "first") == ["B-x", "B-x"]


def test_the_aggregation_decides_between_the_tokens_of_a_word(tokenizer: Tokenizer) -> None:
    parts = {0: "B-x", 1: "S-x", 2: "S-x"}
    expected = {"word": "B-x", "first": "B-x", "average": "S-x"}
    assert {way: tags_of(tokenizer, ["abc"], parts, way)[0] for way in expected} == expected


def test_a_word_that_is_not_read_has_no_tag() -> None:
    library = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    library.normalizer, library.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer = Tokenizer(library.to_str().encode(), max_length=3)
    assert tags_of(tokenizer, ["a", "", "\u200b", "a", "a", "a"], {}) == ["O", None, None, "O", "O", None]


def test_characters_are_joined_without_spaces(tokenizer: Tokenizer) -> None:
    assert JoinedWords.of(["서", "울", "1"]) == "서울1"
    assert JoinedWords.of(["a", " ", "b"]) == "a b"
    assert JoinedWords.of(["I", "a"]) == "I a"
    assert tags_of(tokenizer, ["서", " ", "울"], {0: "B-x", 2: "E-x"}, "simple")[::2] == ["B-x", "E-x"]


@pytest.mark.parametrize(
    "words", [["😀", "x"], ["à", "é"], ["5", "€"], ["see", " ", "London", "today"], ["see", "\u00a0", "it", "5"]]
)
def test_words_are_not_glued_for_a_symbol_or_white_space_among_them(words: list[str]) -> None:
    assert JoinedWords.of(words) == " ".join(words)


@pytest.mark.parametrize("words", [["서울", "에서", " ", "왔다"], ["New", " ", "York"], [*"New York"], [*"東京"]])
def test_parts_of_words_with_their_white_space_are_read_as_they_are(words: list[str]) -> None:
    assert JoinedWords.of(words) == "".join(words)


@pytest.mark.parametrize("words", [[*"ab"], ["ผม", " ", "รัก"], [*"서울"], []])
def test_a_kind_that_is_known_decides(words: list[str]) -> None:
    assert JoinedWords.of(words, TokenKind.WORDS) == " ".join(words)
    assert JoinedWords.of(words).joined_as(TokenKind.CHARACTERS) == "".join(words)
    assert JoinedWords.of(words).joined_as(None) == JoinedWords.of(words)


def test_joined_words_keep_their_words_when_they_are_pickled() -> None:
    words = JoinedWords.of(["a", "bc"])
    copy = pickle.loads(pickle.dumps(words))
    assert (copy, copy.tokens, copy.starts) == ("a bc", ("a", "bc"), (0, 2))


@pytest.mark.parametrize("words", ["a text", ["a", 1], 7, None])
def test_other_things_than_words_are_refused(words: object) -> None:
    with pytest.raises(InputTypeError, match="expected the words of a text, a list of str"):
        JoinedWords.of(words)  # type: ignore[arg-type] # on purpose
