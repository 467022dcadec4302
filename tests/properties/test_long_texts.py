"""A long text has the tokens of the whole text, although it is read in pieces, for every kind of tokenizer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from encort.runtime.common.errors import InputTooLongError
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.tokenizer import Tokenizer

LIMIT = 16
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!"
CORPUS = [
    "hello my card is lost, the card changed",
    "안녕하세요 하이 é 😀 中文",
    "a aa aaa 123 4567",
    "foo_bar-baz, qux! ",
]
PARTS = [
    *(
        "a",
        "ab",
        "my card ",
        "lost!",
        "aB ",
        " ",
        "\n",
        " \n\t",
        "\0",
        "\u200b",
        "e\u0301",
        "\u0301",
        "é",
        "가",
        "안녕 ",
    ),
    *("中", "😀", "a\u200d", "https://x.y/?z=", "1234567890", "[MASK]", "<mask>", "<mask> ", "가\u0301 !", "İ"),
]
runs = st.tuples(st.sampled_from(PARTS) | st.text(min_size=1, max_size=4), st.integers(1, 300) | st.just(6000))
long_texts = st.lists(runs, max_size=4).map(lambda parts: "".join(part * count for part, count in parts))


def word_piece() -> tokenizers.Tokenizer:
    letters = [*LETTERS, *(f"##{letter}" for letter in LETTERS), "my", "card", "lost", "가", "中"]
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters])}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(["[MASK]"])
    return tokenizer


def byte_level() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True)])
    return tokenizer


def metaspace() -> tokenizers.Tokenizer:
    words = ["▁", "▁my", "▁card", "card", "lost", "ab", "가", "中"]
    scores = [*((token, 0.0) for token in SPECIAL), *((word, -2.0 - number / 8) for number, word in enumerate(words))]
    scores += [(letter, -9.0 - number / 100) for number, letter in enumerate(LETTERS)]
    tokenizer = tokenizers.Tokenizer(models.Unigram(scores, unk_id=3))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True)])
    return tokenizer


KINDS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "word-piece": word_piece,
    "byte-level": byte_level,
    "metaspace": metaspace,
}


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest) -> tuple[Any, Tokenizer]:
    """The library's tokenizer, and encort's, which reads 256 characters at a time."""
    library = KINDS[request.param]()
    return library, Tokenizer(library.to_str().encode(), max_length=LIMIT)


def rows(batch: TokenBatch, name: str) -> list[list[int]]:
    values = getattr(batch if name in ("ids", "type_ids") else batch.offsets, name)
    return [part.tolist() for part in np.split(values, batch.cu_seqlens[1:-1])]


@settings(max_examples=12)
@given(long_texts)
def test_a_truncated_text_has_the_tokens_of_the_whole_text(both: tuple[Any, Tokenizer], text: str) -> None:
    library, tokenize = both
    pairs = [(text, "my card"), ("my card", text)]
    library.enable_truncation(LIMIT, strategy="longest_first")
    expected = [library.encode(text), *(library.encode(*pair) for pair in pairs)]
    library.no_truncation()
    batch = tokenize([text, *pairs], return_offsets=True)
    assert rows(batch, "ids") == [encoding.ids for encoding in expected]
    assert rows(batch, "type_ids") == [encoding.type_ids for encoding in expected]
    offsets = [list(zip(*both, strict=True)) for both in zip(rows(batch, "starts"), rows(batch, "ends"), strict=True)]
    assert [of_row[1:-1] for of_row in offsets] == [encoding.offsets[1:-1] for encoding in expected]
    assert batch.truncated[0] == (len(library.encode(text)) > LIMIT)


@settings(max_examples=12)
@given(long_texts)
@example("00\x08" * 6000)  # the last character is in no token
@example("a" * 40_000 + " my card")
def test_windows_have_the_tokens_of_the_whole_text(both: tuple[Any, Tokenizer], text: str) -> None:
    library, tokenize = both
    whole = library.encode("my card", text)
    batch = tokenize([("my card", text)], overflow="window", stride=2, return_offsets=True)
    own = np.ones(len(batch.ids), np.bool_) if batch.windows is None else batch.windows.own
    assert batch.ids[own].tolist() == whole.ids
    assert batch.type_ids[own].tolist() == whole.type_ids
    assert batch.offsets is not None
    assert list(zip(batch.offsets.starts[own], batch.offsets.ends[own], strict=True)) == whole.offsets
    words = [-1 if word is None else word for word in whole.word_ids]
    assert batch.offsets.words[own].tolist() == words


@settings(max_examples=12)
@given(long_texts)
def test_exactly_the_texts_over_the_limit_are_refused(both: tuple[Any, Tokenizer], text: str) -> None:
    library, tokenize = both
    if len(library.encode(text)) > LIMIT:
        with pytest.raises(InputTooLongError, match="text 0 has more than 16 tokens"):
            tokenize([text], overflow="error")
    else:
        assert tokenize([text], overflow="error").ids.tolist() == library.encode(text).ids


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("piece", ["bb", "aa", "abb", "baa"])
@pytest.mark.parametrize("text", ["ab" * 18_000 + "a", "ab" * 40_001 + "c", "abaab" * 9_001, "xyz" * 9_000 + " ab"])
def test_the_skipped_part_of_a_text_makes_no_neighbours_that_give_tokens(text: str, piece: str, split: bool) -> None:
    library = tokenizers.Tokenizer(models.Unigram([("<unk>", -9.0), ("▁", -1.0), (piece, -1.0)], unk_id=0))
    library.pre_tokenizer = pre_tokenizers.Metaspace(split=split)
    whole = library.encode(text)
    batch = Tokenizer(library.to_str().encode(), max_length=2**16)([text], return_offsets=True)
    assert batch.ids.tolist() == whole.ids
    assert batch.offsets is not None
    assert list(zip(batch.offsets.starts, batch.offsets.ends, strict=True)) == whole.offsets
