"""Words end at white space and punctuation, whatever the tokenizer, and own the tokens that begin in them."""

import string
from collections.abc import Callable

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.text.words import token_groups, word_groups


def characters(pre_tokenizer: object) -> Tokenizer:
    """Return a tokenizer with a piece per character and the pieces `▁` and `▁in`."""
    pieces = ["<unk>", "▁", "▁in", *(chr(code) for code in range(0x21, 0x7F)), *"ประเทศไทย中文パリに서울은é"]
    tokenizer = tokenizers.Tokenizer(models.Unigram([(piece, -1.0) for piece in dict.fromkeys(pieces)], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizer
    return Tokenizer(tokenizer.to_str().encode(), max_length=128)


MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "split": lambda: characters(pre_tokenizers.Metaspace()),
    "whole": lambda: characters(pre_tokenizers.Metaspace(split=False)),
    "suffix": lambda: characters(pre_tokenizers.Split(" ", "merged_with_previous")),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I live in Paris.", "I live in Paris ."),
        ("(Paris), now", "( Paris ) , now"),
        ("  in  two ", "in two"),
        ("U.S.", "U . S ."),
        ("ไทย", "ไ ท ย"),
        ("中文 in パリに", "中 文 in パ リ に"),
        ("서울은 é", "서울은 é"),
        ("", ""),
        (" ", ""),
    ],
)
def test_words_are_those_of_the_text(maker: str, text: str, words: str) -> None:
    batch = MAKERS[maker]()([text], return_offsets=True)
    assert [text[group.start : group.end] for group in word_groups(batch, 0)] == words.split()


@pytest.mark.parametrize("pre_tokenizer", ["Metaspace", "whole", "BERT"])
def test_letters_that_the_tokenizer_drops_belong_to_their_word(pre_tokenizer: str) -> None:
    pieces = ["<unk>", "▁", *string.ascii_letters, "."]
    library = tokenizers.Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    library.normalizer = normalizers.Replace(tokenizers.Regex("[hx]"), "")
    library.pre_tokenizer = {
        "Metaspace": pre_tokenizers.Metaspace(),
        "whole": pre_tokenizers.Metaspace(split=False),
        "BERT": pre_tokenizers.BertPreTokenizer(),
    }[pre_tokenizer]
    text = "hello oxhx xoh hh the.xx"
    batch = Tokenizer(library.to_str().encode(), max_length=128)([text], return_offsets=True)
    assert [text[group.start : group.end] for group in word_groups(batch, 0)] == ["hello", "oxhx", "xoh", "the", "."]
    cut = Tokenizer(library.to_str().encode(), max_length=3)(["tohhhhhoxbc"], return_offsets=True)
    assert [group.end for group in word_groups(cut, 0)] == [int(cut.offsets.ends[-1])]  # type: ignore[union-attr]


def test_a_word_begins_with_the_token_of_the_space_before_it() -> None:
    batch = MAKERS["whole"]()(["in two."], return_offsets=True)
    assert [(group.first, group.last) for group in word_groups(batch, 0)] == [(0, 0), (1, 4), (5, 5)]
    assert [group.first for group in token_groups(batch, 0)] == [*range(6)]
