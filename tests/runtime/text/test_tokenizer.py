"""Texts become token ids, pairs get type ids, texts over the limit follow `overflow`, other inputs are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from encort.runtime.common.errors import BundleError, InputError, InputTooLongError, InputTypeError
from encort.runtime.text.token_batch import Text
from encort.runtime.text.tokenizer import Tokenizer

TokenId = Callable[[str], int]

LIMIT = 16
CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def file(classifier_bundle: Path) -> Path:
    return classifier_bundle / "tokenizer.json"


@pytest.fixture(scope="module")
def tokenize(file: Path) -> Tokenizer:
    return Tokenizer(file.read_bytes(), max_length=LIMIT)


@pytest.fixture(scope="module")
def token(file: Path) -> TokenId:
    return tokenizers.Tokenizer.from_file(str(file)).token_to_id


def test_special_tokens_are_included(tokenize: Tokenizer, token: TokenId) -> None:
    assert tokenize(["my card"]).ids.tolist() == [CLS, token("my"), token("card"), SEP]


def test_the_tokens_of_texts_follow_each_other(tokenize: Tokenizer, token: TokenId) -> None:
    batch = tokenize(["hello", "", "my card"])
    assert batch.cu_seqlens.tolist() == [0, 3, 5, 9]
    assert batch.ids.tolist() == [CLS, token("hello"), SEP, CLS, SEP, CLS, token("my"), token("card"), SEP]
    assert not batch.truncated.any()


def test_the_second_text_of_a_pair_has_type_1(tokenize: Tokenizer, token: TokenId) -> None:
    batch = tokenize([("my card", "lost")])
    assert batch.ids.tolist() == [CLS, token("my"), token("card"), SEP, token("lost"), SEP]
    assert batch.type_ids.tolist() == [0, 0, 0, 0, 1, 1]


def test_texts_and_pairs_can_be_mixed(tokenize: Tokenizer) -> None:
    batch = tokenize(["hello", ("hello", "pin"), "hello"])
    assert batch.lengths.tolist() == [3, 5, 3]
    assert batch.type_ids.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0]


def test_an_empty_second_text_still_makes_a_pair(tokenize: Tokenizer) -> None:
    assert tokenize([("hello", "")]).type_ids.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("texts", [[], ()])
def test_no_texts_give_an_empty_batch(tokenize: Tokenizer, texts: Any) -> None:
    batch = tokenize(texts)
    assert (len(batch), batch.cu_seqlens.tolist()) == (0, [0])
    assert [array.dtype for array in (batch.ids, batch.type_ids, batch.cu_seqlens)] == [np.int64] * 3
    assert batch.truncated.dtype == np.bool_


def test_a_text_at_the_limit_is_whole_and_a_longer_one_is_truncated(tokenize: Tokenizer) -> None:
    batch = tokenize(["card " * (LIMIT - 2), "card " * (LIMIT - 1)])
    assert batch.lengths.tolist() == [LIMIT, LIMIT]
    assert batch.truncated.tolist() == [False, True]
    assert batch.ids[-1] == SEP


def test_a_hundred_thousand_characters_are_truncated(tokenize: Tokenizer) -> None:
    batch = tokenize(["card " * 20_000])
    assert (batch.lengths.tolist(), batch.truncated.tolist()) == ([LIMIT], [True])


def test_the_longer_text_of_a_pair_is_truncated_first(tokenize: Tokenizer, token: TokenId) -> None:
    batch = tokenize([("hello", "card " * 100)])
    assert batch.ids.tolist() == [CLS, token("hello"), SEP, *[token("card")] * (LIMIT - 4), SEP]
    assert batch.truncated.tolist() == [True]


def test_overflow_error_names_the_first_text_over_the_limit(tokenize: Tokenizer) -> None:
    with pytest.raises(InputTooLongError, match=r"text 1 has more than 16 tokens; .*overflow=\"truncate\""):
        tokenize(["hello", "card " * 99, "card " * 99], overflow="error")


def test_overflow_error_accepts_texts_at_the_limit(tokenize: Tokenizer) -> None:
    assert tokenize(["card " * (LIMIT - 2)], overflow="error").lengths.tolist() == [LIMIT]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("hello", "got one str: put it in a list"),
        (b"hello", "got one bytes: put it in a list"),
        (None, r"got NoneType: pass list\(...\)"),
        (3, "got int"),
        ({"hello"}, "got set"),
        ({"text": "hello"}, "got dict"),
        ((text for text in ["hello"]), "got generator"),
        (np.array(["hello"]), "got ndarray"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_inputs_that_are_not_a_list_of_texts_are_refused(tokenize: Tokenizer, texts: Any, message: str) -> None:
    with pytest.raises(InputTypeError, match=f"expected a list of texts, {message}"):
        tokenize(texts)


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        (None, "NoneType None"),
        (3, "int 3"),
        (float("nan"), "float nan"),
        (b"hello", "bytes b'hello'"),
        (["a", "b"], r"list \['a', 'b'\]"),
        (("a",), r"tuple \('a',\)"),
        (("a", "b", "c"), r"tuple \('a', 'b', 'c'\)"),
        (("a", None), r"tuple \('a', None\)"),
        (b"x" * 1000, r"bytes b'x{35}\.\.\.$"),
    ],
    ids=repr,
)
def test_the_error_for_a_wrong_item_shows_it(tokenize: Tokenizer, item: Any, shown: str) -> None:
    with pytest.raises(InputTypeError, match=f"text 1: expected a str or a tuple of two str, got {shown}"):
        tokenize(["hello", item])


@pytest.mark.parametrize("lone", [0xD800, 0xDCFF, 0xDFFF])
@pytest.mark.parametrize("around", [lambda text: text, lambda text: ("hello", text), lambda text: (text, "hello")])
def test_an_unpaired_surrogate_is_refused(tokenize: Tokenizer, lone: int, around: Callable[[str], Text]) -> None:
    message = rf"text 1 has an unpaired surrogate '\\u{lone:x}' at character 2, .* errors=\"replace\""
    with pytest.raises(InputError, match=message):
        tokenize(["안녕", around(f"ab{chr(lone)}")])


@pytest.mark.parametrize("text", ["😀", "\0", "\u202e", "e\u0301", "\ufeff", "\n\t ", "\U0010ffff"])
def test_any_unicode_is_accepted(tokenize: Tokenizer, text: str) -> None:
    ids = tokenize([text]).ids
    assert (ids[0], ids[-1]) == (CLS, SEP)


def test_padding_and_truncation_of_the_file_are_ignored(file: Path, tokenize: Tokenizer, tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(file))
    backend.enable_padding(length=40)
    backend.enable_truncation(4)
    backend.save(str(tmp_path / "tokenizer.json"))
    texts = ["hello", "my card is lost hello"]
    other = Tokenizer((tmp_path / "tokenizer.json").read_bytes(), max_length=LIMIT)
    assert other(texts).ids.tolist() == tokenize(texts).ids.tolist()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"null"])
def test_a_file_that_is_not_a_tokenizer_raises_a_bundle_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(BundleError, match="is not a tokenizer"):
        Tokenizer((tmp_path / "tokenizer.json").read_bytes(), max_length=LIMIT)


@pytest.mark.parametrize("limit", [-1, 0, 1, 10**30])
def test_an_impossible_limit_raises_a_bundle_error(file: Path, limit: int) -> None:
    with pytest.raises(BundleError):
        Tokenizer(file.read_bytes(), max_length=limit)
