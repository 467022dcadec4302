"""Token ids in place of texts, windows of long texts, texts of ten megabytes, and offsets of tokens."""

import itertools
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

import encort
from encort.runtime.common.arrays import Int64Array
from encort.runtime.common.errors import InputError, InputTooLongError, InputTypeError
from encort.runtime.text.token_batch import Text, TokenBatch
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.text.windows import Overflow
from tests.builders import bert_tokenizer

Truncated = Callable[[Text], list[int]]

# No deadline: the machine may be busy with other work.
settings.register_profile("encort", deadline=None)
settings.load_profile("encort")

LIMIT = 16
CLS, SEP = 2, 3
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", ">i4"]
MEGABYTES = 10_000_000
LONG = {"words": "my card is lost, ", "korean": "안녕하세요 하이 ", "chinese": "中文字"}


@pytest.fixture(scope="module")
def file(classifier_bundle: Path) -> Path:
    return classifier_bundle / "tokenizer.json"


@pytest.fixture(scope="module")
def tokenize(file: Path) -> Tokenizer:
    return Tokenizer(file.read_bytes(), max_length=LIMIT)


@pytest.fixture(scope="module")
def wide(file: Path) -> Tokenizer:
    """A tokenizer with a limit that no text of these tests reaches."""
    return Tokenizer(file.read_bytes(), max_length=5000)


@pytest.fixture(scope="module")
def size(file: Path) -> int:
    return tokenizers.Tokenizer.from_file(str(file)).get_vocab_size()


@pytest.fixture(scope="module")
def truncated(file: Path) -> Truncated:
    """`truncated(text)` returns the token ids of the library, which reads the whole text and then truncates it."""
    backend = tokenizers.Tokenizer.from_file(str(file))
    backend.no_padding()
    backend.enable_truncation(LIMIT, strategy="longest_first")
    return lambda text: (backend.encode(*text) if isinstance(text, tuple) else backend.encode(text)).ids


class CharacterCounter:
    """Wraps a tokenizer of the library and counts the characters that it reads."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.characters = inner, 0

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.inner, name)
        if not name.startswith("encode"):
            return attribute

        def encode(texts: list[Text], *arguments: Any, **options: Any) -> Any:
            self.characters += sum(len(text) if isinstance(text, str) else sum(map(len, text)) for text in texts)
            return attribute(texts, *arguments, **options)

        return encode


@pytest.fixture
def counting(file: Path) -> tuple[Tokenizer, CharacterCounter]:
    """A tokenizer, and the counter of its characters."""
    tokenizer = Tokenizer(file.read_bytes(), max_length=LIMIT)
    counter = CharacterCounter(tokenizer._backend.library)
    tokenizer._backend.library = counter
    return tokenizer, counter


# Token ids


def test_token_ids_are_taken_as_they_are(tokenize: Tokenizer, size: int) -> None:
    batch = tokenize([[CLS, 7, 8, SEP], [size - 1], [0]])
    assert batch.ids.tolist() == [CLS, 7, 8, SEP, size - 1, 0]
    assert batch.cu_seqlens.tolist() == [0, 4, 5, 6]
    assert batch.type_ids.tolist() == [0] * 6
    assert batch.truncated.tolist() == [False] * 3
    assert [array.dtype for array in (batch.ids, batch.type_ids, batch.cu_seqlens)] == [np.int64] * 3
    assert (batch.offsets, batch.windows, batch.reversed, len(batch.texts)) == (None, None, None, 0)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_arrays_of_every_integer_type_are_token_ids(tokenize: Tokenizer, dtype: str) -> None:
    batch = tokenize([np.array([CLS, 100, SEP], dtype), np.array([5, 6], dtype)])
    assert batch.ids.tolist() == [CLS, 100, SEP, 5, 6]
    assert batch.lengths.tolist() == [3, 2]


def test_lists_and_arrays_of_token_ids_can_be_mixed(tokenize: Tokenizer) -> None:
    rows = [[1, 2], np.array([3]), np.array([4, 5], np.uint16), [6]]
    assert tokenize(rows).ids.tolist() == tokenize(tuple(rows)).ids.tolist() == [1, 2, 3, 4, 5, 6]


def test_rows_of_a_matrix_are_token_ids(tokenize: Tokenizer) -> None:
    assert tokenize(list(np.arange(6).reshape(2, 3))).cu_seqlens.tolist() == [0, 3, 6]


def test_token_ids_may_be_as_long_as_the_limit(tokenize: Tokenizer) -> None:
    assert tokenize([[1] * LIMIT]).lengths.tolist() == [LIMIT]


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_tokens_of_texts_are_accepted_as_token_ids(tokenize: Tokenizer, texts: list[str]) -> None:
    batch = tokenize(texts)
    rows = np.split(batch.ids, batch.cu_seqlens[1:-1])
    for copy in (tokenize(rows), tokenize([row.tolist() for row in rows])):
        assert copy.ids.tolist() == batch.ids.tolist()
        assert copy.cu_seqlens.tolist() == batch.cu_seqlens.tolist()


def test_token_ids_of_a_vocabulary_with_a_duplicate_word_are_accepted(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "a", "c"]
    bert_tokenizer(words).save_pretrained(tmp_path)
    tokenize = Tokenizer((tmp_path / "tokenizer.json").read_bytes(), max_length=LIMIT)
    ids = tokenize(["a b c"]).ids
    assert tokenize([ids]).ids.tolist() == ids.tolist() == [CLS, 7, 6, 8, SEP]


@pytest.mark.parametrize(
    "item",
    [
        [1.0, 2.0],
        [1, 2.0],
        [True, False],
        [1, True],
        [1, None],
        ["a", "b"],
        [[1], [2]],
        np.array([1.0, 2.0]),
        np.array([True, False]),
        np.array([[1, 2]]),
        np.array(1),
        np.array(["a"]),
        np.array([1, 2], object),
        1,
        None,
        b"ab",
    ],
    ids=repr,
)
def test_items_that_are_not_lists_of_integers_are_refused(tokenize: Tokenizer, item: Any) -> None:
    with pytest.raises(InputTypeError, match="text 3: expected a str or a tuple of two str, got"):
        tokenize([item], first=3)
    with pytest.raises(InputTypeError, match="text 4: expected token ids like the first, got"):
        tokenize([[1, 2], item], first=3)


@pytest.mark.parametrize("rows", [[[]], [[1], []], [np.array([], np.int64)]], ids=repr)
def test_an_input_without_token_ids_is_refused(tokenize: Tokenizer, rows: Any) -> None:
    with pytest.raises(InputError, match=rf"text {len(rows) - 1} has no token ids"):
        tokenize(rows)


@pytest.mark.parametrize("overflow", ["truncate", "error", "window"])
def test_too_many_token_ids_are_refused(tokenize: Tokenizer, overflow: Overflow) -> None:
    with pytest.raises(InputTooLongError, match=rf"text 1 has {LIMIT + 1} token ids, the limit is {LIMIT}"):
        tokenize([[1], [1] * (LIMIT + 1)], overflow=overflow)


@pytest.mark.parametrize("row", [[-1], [1, -7, 2], np.array([-128], np.int8)], ids=repr)
def test_negative_token_ids_are_refused(tokenize: Tokenizer, row: Any) -> None:
    with pytest.raises(InputError, match=r"text 1: token ids must be from 0 to \d+, got -"):
        tokenize([[1], row])


@pytest.mark.parametrize("beyond", [0, 1, 2**40, 2**63])
def test_token_ids_beyond_the_vocabulary_are_refused(tokenize: Tokenizer, size: int, beyond: int) -> None:
    with pytest.raises(InputError, match=rf"text 0: token ids must be from 0 to {size - 1}, got 1 to {size + beyond}$"):
        tokenize([[1, size + beyond]])


@pytest.mark.parametrize("text", ["my card", ("my", "card")])
def test_texts_and_token_ids_cannot_be_mixed(tokenize: Tokenizer, text: Text) -> None:
    with pytest.raises(InputTypeError, match="text 1: expected token ids like the first"):
        tokenize([[1, 2], text])
    with pytest.raises(InputTypeError, match=r"text 1: expected a str or a tuple of two str, got list \[1, 2\]"):
        tokenize([text, [1, 2]])


def test_a_model_accepts_token_ids_in_place_of_texts(encoder: encort.Model) -> None:
    texts = ["my card is lost", "hello"]
    batch = encoder.tokenize(texts)
    rows = np.split(batch.ids, batch.cu_seqlens[1:-1])
    np.testing.assert_array_equal(encoder.embed(rows), encoder.embed(texts))
    np.testing.assert_array_equal(encoder.embed([row.tolist() for row in rows]), encoder.embed(texts))


# Windows


def rows_of(batch: TokenBatch, array: Int64Array) -> list[list[int]]:
    return [part.tolist() for part in np.split(array, batch.cu_seqlens[1:-1])]


def text_of(length: int) -> str:
    """Return words in a long cycle, so that windows in the wrong order show."""
    return " ".join(itertools.islice(itertools.cycle(["my", "card", "is", "lost", "hello", "pin", "the"]), length))


def test_a_long_text_is_read_in_windows(tokenize: Tokenizer, wide: Tokenizer) -> None:
    text = text_of(40)
    batch, (ids,) = tokenize([text], overflow="window", stride=4), rows_of(wide([text]), wide([text]).ids)
    assert rows_of(batch, batch.ids) == [[CLS, *ids[start : min(start + 14, 41)], SEP] for start in (1, 11, 21, 31)]
    assert batch.truncated.tolist() == [False] * 4
    assert batch.windows.texts.tolist() == [0] * 4
    assert batch.ids[batch.windows.own].tolist() == ids
    assert batch.tokens_per_text.tolist() == [42]
    assert batch.truncated_texts.tolist() == [False]


def test_a_long_context_is_read_in_windows_that_repeat_its_question(tokenize: Tokenizer, wide: Tokenizer) -> None:
    pair = ("my card", text_of(25))
    batch, whole = tokenize([pair], overflow="window", stride=3), wide([pair])
    question, context = whole.ids[:4].tolist(), whole.ids[4:-1].tolist()
    assert rows_of(batch, batch.ids) == [[*question, *context[start : start + 11], SEP] for start in (0, 8, 16)]
    assert rows_of(batch, batch.type_ids) == [[0] * 4 + [1] * (length - 4) for length in batch.lengths]
    assert batch.ids[batch.windows.own].tolist() == whole.ids.tolist()


def test_a_long_first_text_with_an_empty_second_is_read_in_windows(tokenize: Tokenizer, wide: Tokenizer) -> None:
    pair = (text_of(25), "")
    batch = tokenize([pair], overflow="window", stride=3)
    assert len(batch) > 1
    assert batch.ids[batch.windows.own].tolist() == wide([pair]).ids.tolist()
    assert all(row[-2:] == [SEP, SEP] for row in rows_of(batch, batch.ids))


def test_every_window_has_the_number_of_its_text(tokenize: Tokenizer) -> None:
    texts = ["hello", text_of(20), "", ("my", text_of(20)), text_of(14), text_of(15)]
    batch = tokenize(texts, overflow="window", stride=0)
    assert batch.windows.texts.tolist() == [0, 1, 1, 2, 3, 3, 4, 5, 5]
    assert batch.tokens_per_text.tolist() == [3, 22, 2, 24, 16, 17]
    assert batch.truncated_texts.tolist() == [False] * 6
    assert list(batch.texts) == texts


def test_texts_that_fit_have_no_windows(tokenize: Tokenizer) -> None:
    texts = ["hello", text_of(LIMIT - 2), ("my card", "lost")]
    batch = tokenize(texts, overflow="window")
    assert batch.windows is None
    assert batch.ids.tolist() == tokenize(texts).ids.tolist()


def test_windows_share_a_quarter_by_default(tokenize: Tokenizer) -> None:
    batch = tokenize([text_of(40)], overflow="window")
    assert batch.ids.tolist() == tokenize([text_of(40)], overflow="window", stride=3).ids.tolist()


texts_and_pairs = st.lists(
    st.text("ab 가😀\u0301.", max_size=90) | st.tuples(st.text("ab ", max_size=8), st.text("ab 가😀.", max_size=60)),
    min_size=1,
    max_size=5,
)


@given(texts_and_pairs, st.integers(0, 3))
def test_every_token_counts_in_one_window_and_keeps_its_offsets(
    tokenize: Tokenizer, wide: Tokenizer, texts: list[Text], stride: int
) -> None:
    batch, whole = (
        tokenize(texts, overflow="window", stride=stride, return_offsets=True),
        wide(texts, return_offsets=True),
    )
    own = np.ones(len(batch.ids), np.bool_) if batch.windows is None else batch.windows.own
    assert batch.lengths.max() <= LIMIT
    assert not batch.truncated.any()
    assert batch.ids[own].tolist() == whole.ids.tolist()
    assert batch.type_ids[own].tolist() == whole.type_ids.tolist()
    assert batch.tokens_per_text.tolist() == whole.lengths.tolist()
    for name in ("starts", "ends", "words", "sequences"):
        assert getattr(batch.offsets, name)[own].tolist() == getattr(whole.offsets, name).tolist()


@pytest.mark.parametrize("stride", [-1, -100])
@pytest.mark.parametrize("texts", [[text_of(40)], ["hello"], []])
def test_a_negative_stride_is_refused(tokenize: Tokenizer, stride: int, texts: list[Text]) -> None:
    with pytest.raises(InputError, match=f"stride must be at least 0, got {stride}"):
        tokenize(texts, overflow="window", stride=stride)


def test_the_error_for_a_question_that_leaves_no_room_has_its_number(tokenize: Tokenizer) -> None:
    with pytest.raises(InputTooLongError, match="text 6: 0 of 16 tokens are left"):
        tokenize(["hello", (text_of(13), text_of(9))], overflow="window", stride=0, first=5)


def test_windows_of_pairs_that_are_also_swapped_are_refused(tokenize: Tokenizer) -> None:
    with pytest.raises(InputError, match="either order, so it cannot cut windows"):
        tokenize([("my card", text_of(40))], overflow="window", reverse=True)


# Very long texts


def long_text(name: str, size: int = MEGABYTES) -> str:
    return LONG[name] * (size // len(LONG[name].encode()))


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("shape", ["text", "first of a pair", "second of a pair"])
def test_only_the_beginning_of_ten_megabytes_is_read(
    counting: tuple[Tokenizer, CharacterCounter], truncated: Truncated, name: str, shape: str
) -> None:
    tokenizer, counter = counting
    around = {"text": lambda text: text, "first of a pair": lambda text: (text, "my pin")}
    make = around.get(shape, lambda text: ("my pin", text))
    batch = tokenizer([make(long_text(name))])
    # The text repeats itself, so that a hundredth of it keeps the same tokens.
    assert batch.ids.tolist() == truncated(make(long_text(name, MEGABYTES // 100)))
    assert batch.truncated.tolist() == [True]
    # More is read of a pair, because the longer text keeps the odd token.
    assert counter.characters < (100 * LIMIT if shape == "text" else 300_000)


def test_ten_megabytes_are_refused_without_being_read(counting: tuple[Tokenizer, CharacterCounter]) -> None:
    tokenizer, counter = counting
    with pytest.raises(InputTooLongError, match="text 0 has more than 16 tokens"):
        tokenizer([long_text("words")], overflow="error")
    assert counter.characters < 100 * LIMIT


@pytest.mark.parametrize(
    "text",
    [
        "a" * 100_000,
        "a" * 3_000 + " card" * 1_000,
        " " * 100_000 + "my card " * 20,
        "\0" * 100_000 + "my card " * 20,
        "my card " + " " * 100_000 + "is lost " * 20,
        "e" + "\u0301" * 100_000 + " card" * 20,
        "안녕하세요" * 20_000,
        "[MASK]" * 20_000,
        "my card" + " " * 100_000,
        "card " * 13 + " " * 100_000 + "!",
        # The beginning ends inside the word, and the letters before its end would be tokens of their own.
        " " * 170 + "b" * 150 + " card" * 20,
    ],
    ids=[
        "one word",
        "long word",
        "spaces",
        "nul",
        "gap",
        "marks",
        "no spaces",
        "masks",
        "short",
        "at the limit",
        "cut word",
    ],
)
def test_more_is_read_if_the_beginning_has_too_few_tokens(
    tokenize: Tokenizer, wide: Tokenizer, truncated: Truncated, text: str
) -> None:
    batch = tokenize([text])
    assert batch.ids.tolist() == truncated(text)
    backend = wide._backend.library
    assert batch.truncated.tolist() == [len(backend.encode(text)) > LIMIT]


@given(st.lists(st.tuples(st.text("a b가中\u0301!😀 ", min_size=1, max_size=6), st.integers(1, 300)), max_size=6))
def test_any_long_text_has_the_tokens_of_the_whole_text(
    tokenize: Tokenizer, wide: Tokenizer, truncated: Truncated, parts: Any
) -> None:
    text = "".join(piece * times for piece, times in parts)
    batch = tokenize([text, (text, "my"), ("my", text)])
    assert rows_of(batch, batch.ids) == [truncated(text), truncated((text, "my")), truncated(("my", text))]
    lengths = [len(wide._backend.library.encode(text)), *[len(wide._backend.library.encode(text, "my"))] * 2]
    assert batch.truncated.tolist() == [length > LIMIT for length in lengths]


@pytest.mark.parametrize("second", ["!" * 250, "!" * 1500], ids=["short", "long"])
def test_the_longer_text_of_a_pair_keeps_the_odd_token(tokenize: Tokenizer, truncated: Truncated, second: str) -> None:
    # 2000 tokens against 250, or 1500; with three special tokens, 13 of 16 are left to share.
    pair = ("a " * 2000, second)
    assert tokenize([pair]).ids.tolist() == truncated(pair)


# Offsets


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("my card", ["my", "card"]),
        ("playing", ["play", "ing"]),
        ("안녕 하이", ["안녕", "하이"]),
        ("😀 my 👨‍👩‍👧 card", ["😀", "my", "👨‍👩‍👧", "card"]),
        ("\U0001d11emy card", ["\U0001d11emy", "card"]),
        ("😀😀 lost", ["😀😀", "lost"]),
        ("my\tcard\nis\r\nlost", ["my", "card", "is", "lost"]),
        ("\n\n  my  \t card  ", ["my", "card"]),
        # Combining marks are dropped, and the token of the letter ends before its mark.
        ("e\u0301 my", ["e", "my"]),
        ("é my", ["é", "my"]),
        ("pi\u0301n lost", ["pi\u0301n", "lost"]),
        ("MY Card!", ["MY", "Card", "!"]),
        ("中my文", ["中", "my", "文"]),
        ("my\u00a0card\u3000is", ["my", "card", "is"]),
        ("my [MASK] card", ["my", "[MASK]", "card"]),
        ("\ufeffmy card", ["my", "card"]),
    ],
)
def test_offsets_are_those_of_the_characters(tokenize: Tokenizer, text: str, parts: Any) -> None:
    offsets = tokenize([text], return_offsets=True).offsets
    assert offsets is not None
    starts, ends = offsets.starts[1:-1].tolist(), offsets.ends[1:-1].tolist()
    assert [text[start:end] for start, end in zip(starts, ends, strict=True)] == parts
    assert offsets.words.tolist()[1:-1] == ([0, 0] if text == "playing" else list(range(len(parts))))
    assert offsets.sequences.tolist() == [-1, *[0] * len(parts), -1]
    assert (offsets.words[[0, -1]] == -1).all()


def test_offsets_of_a_pair_count_from_the_start_of_each_text(tokenize: Tokenizer) -> None:
    pair = ("😀 my", "\tcard 안녕")
    offsets = tokenize([pair], return_offsets=True).offsets
    assert offsets is not None
    assert offsets.sequences.tolist() == [-1, 0, 0, -1, 1, 1, -1]
    parts = [
        pair[part][start:end]
        for part, start, end in zip(offsets.sequences, offsets.starts, offsets.ends, strict=True)
        if part >= 0
    ]
    assert parts == ["😀", "my", "card", "안녕"]


def test_offsets_are_returned_only_on_request(tokenize: Tokenizer) -> None:
    assert tokenize(["my card"]).offsets is None


@given(st.text("aB éß안😀\u0301\t\n가\U0001d11e.", max_size=60))
def test_a_token_has_the_letters_at_its_offsets(wide: Tokenizer, file: Path, text: str) -> None:
    token_of = tokenizers.Tokenizer.from_file(str(file)).id_to_token
    batch = wide([text], return_offsets=True)
    offsets = batch.offsets
    assert offsets is not None
    assert (np.diff(offsets.starts[1:-1]) >= 0).all()
    for token, start, end in list(zip(batch.ids.tolist(), offsets.starts, offsets.ends, strict=True))[1:-1]:
        part = text[start:end]
        assert 0 <= start < end <= len(text)
        assert not any(character.isspace() for character in part)
        if token_of(token) != "[UNK]":
            letters = [letter for letter in unicodedata.normalize("NFD", part) if not unicodedata.combining(letter)]
            assert token_of(token).removeprefix("##") == "".join(letters).lower()


@pytest.mark.parametrize("length", [1, 100, 5000])
def test_the_beginning_of_a_text_or_pair_is_cut_on_request(tokenize: Tokenizer, file: Path, length: int) -> None:
    backend = tokenizers.Tokenizer.from_file(str(file))
    backend.enable_truncation(LIMIT, strategy="longest_first", direction="left")
    text = "my card is lost, " * length + "hello"
    batch = tokenize([text, (text, "my card"), ("my card", text)], overflow="truncate_left")
    encodings = [backend.encode(text), backend.encode(text, "my card"), backend.encode("my card", text)]
    assert rows_of(batch, batch.ids) == [encoding.ids for encoding in encodings]
    assert batch.truncated.tolist() == [bool(encoding.overflowing) for encoding in encodings]
