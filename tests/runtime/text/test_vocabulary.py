"""Tokens and ids, there and back, with the values of the reference encoders."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encort.runtime.common.errors import InputError, InputTypeError
from encort.runtime.text.tokenizer import Tokenizer
from tests.builders import bert_tokenizer

ROOT = Path(__file__).parents[3]
UNCASED = {
    "[PAD]": 0,
    "[UNK]": 100,
    "[CLS]": 101,
    "[SEP]": 102,
    ".": 1012,
    "a": 1037,
    "i": 1045,
    "am": 2572,
    "boy": 2879,
}
"""A part of the vocabulary of `bert-base-uncased`, with its ids."""
KOREAN = [
    "안녕Hugging Face는 인공지능(AI)과 자연어 처리(NLP) 분야에서 혁신적인 도구와 모델을 제공하는 AI 스타트업이다.",
    "2016년에 설립된 이 회사는 주로 오픈소스 라이브러리와 사전 학습된 NLP 모델을 제공을 제공한다.",
]


def tokenizer_of(words: Sequence[str], *, lower_case: bool, max_length: int) -> Tokenizer:
    library = bert_tokenizer(words, do_lower_case=lower_case).backend_tokenizer
    return Tokenizer(library.to_str().encode(), max_length=max_length)


@pytest.fixture(scope="module")
def uncased() -> Tokenizer:
    """A tokenizer with some of the ids of `bert-base-uncased`."""
    names = {number: token for token, number in UNCASED.items()}
    words = [names.get(number, f"[unused{number}]") for number in range(3000)]
    return tokenizer_of(words, lower_case=True, max_length=512)


@pytest.fixture(scope="module")
def kcbert() -> Callable[[int], Tokenizer]:
    """`kcbert(10)` returns the tokenizer of KcBERT, which cuts at 10 tokens."""
    words = (ROOT / "examples" / "kcbert" / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return lambda max_length: tokenizer_of(words, lower_case=False, max_length=max_length)


def test_a_text_becomes_ids_and_a_text_again(uncased: Tokenizer) -> None:
    ids = uncased(["I am a boy."]).ids
    assert ids.tolist() == [101, 1045, 2572, 1037, 2879, 1012, 102]
    assert uncased.vocabulary.tokens(ids) == ["[CLS]", "i", "am", "a", "boy", ".", "[SEP]"]
    assert uncased.vocabulary.decode(ids) == "[CLS] i am a boy. [SEP]"
    assert uncased.vocabulary.decode(ids.tolist(), skip_special_tokens=True) == "i am a boy."


def test_tokens_become_ids_without_special_tokens(uncased: Tokenizer) -> None:
    # "I" is none of its tokens, which are in lower case.
    assert uncased.vocabulary.ids(["I", "am", "a", "boy"]) == [100, 2572, 1037, 2879]
    assert uncased.vocabulary.ids([]) == []


def test_short_korean_texts_have_the_ids_of_kcbert(kcbert: Callable[[int], Tokenizer]) -> None:
    batch = kcbert(10)(["안녕하세요", "하이!"])
    rows = batch.rows(np.arange(2))
    assert rows["input_ids"].tolist() == [[2, 19017, 8482, 3], [2, 15830, 5, 3]]
    assert rows["attention_mask"].all()
    assert not rows["token_type_ids"].any()


def test_long_mixed_texts_are_cut_at_the_limit(kcbert: Callable[[int], Tokenizer]) -> None:
    batch = kcbert(10)(KOREAN)
    assert batch.rows(np.arange(2))["input_ids"].tolist() == [
        [2, 19017, 5121, 4223, 4403, 4403, 18940, 39, 4243, 3],
        [2, 26182, 4113, 20684, 4130, 2451, 22088, 20002, 15999, 3],
    ]
    assert batch.truncated.tolist() == [True, True]


def test_a_long_mixed_text_is_read_whole_below_the_limit(kcbert: Callable[[int], Tokenizer]) -> None:
    batch = kcbert(300)(KOREAN[:1])
    first = [2, 19017, 5121, 4223, 4403, 4403, 18940, 39, 4243, 4773, 4226, 4008, 14583, 25061, 11, 22502, 12, 321]
    second = [10459, 4071, 9810, 11, 47, 4450, 4579, 12, 16029, 7971, 13064, 8097, 867, 4228, 4196, 16505, 4027]
    assert batch.ids.tolist() == [*first, *second, 13248, 7966, 22502, 12296, 4104, 22192, 4020, 17, 3]
    assert not batch.truncated.any()


@pytest.mark.parametrize("ids", [[5000], [-1], [101, 10**6], [2**70]])
def test_an_id_outside_of_the_vocabulary_is_an_error(uncased: Tokenizer, ids: list[int]) -> None:
    for method in (uncased.vocabulary.decode, uncased.vocabulary.tokens):
        with pytest.raises(InputError, match=f"token id {ids[-1]} is not in the vocabulary"):
            method(ids)


@pytest.mark.parametrize("ids", ["101", [1.0], [[101]], None, [True]])
def test_ids_of_another_type_are_an_error(uncased: Tokenizer, ids: Any) -> None:
    with pytest.raises(InputTypeError, match="expected token ids"):
        uncased.vocabulary.decode(ids)


@pytest.mark.parametrize("tokens", ["boy", [1], None])
def test_tokens_of_another_type_are_an_error(uncased: Tokenizer, tokens: Any) -> None:
    with pytest.raises(InputTypeError, match="expected tokens"):
        uncased.vocabulary.ids(tokens)


def test_a_vocabulary_without_an_unknown_token_refuses_other_tokens() -> None:
    import tokenizers
    from tokenizers import models

    library = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    vocabulary = Tokenizer(library.to_str().encode(), max_length=8).vocabulary
    assert vocabulary.ids(["b", "a"]) == [1, 0]
    with pytest.raises(InputError, match="token 'c' is not in the vocabulary"):
        vocabulary.ids(["c"])
