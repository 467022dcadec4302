"""`Tokenizer` gives the tokens of the fast tokenizers of transformers, for any text."""

import functools
from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from encort.runtime.text.tokenizer import Tokenizer
from tests.parity.tiny_tokenizers import DIFFICULT, PAIRS, bert, roberta, xlm_roberta

settings.register_profile("encort", deadline=None)
settings.load_profile("encort")

KINDS = ["bert cased", "bert lower-cased", "roberta", "xlm-roberta"]

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
pieces = any_text | st.sampled_from(DIFFICULT) | st.text("aA é\u0301가中😀.[]<mask>\n", max_size=20)
any_input = st.lists(pieces, max_size=4).map("".join)
limits = st.integers(5, 24)


@pytest.fixture(scope="module", params=KINDS)
def kind(
    request: pytest.FixtureRequest, vocabulary: list[str], tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """The tokenizer of transformers, `fast`, and of encort, `tokenize(limit)`, from the same folder."""
    folder = tmp_path_factory.mktemp("tokenizer")
    original = {
        "bert cased": lambda: bert(vocabulary, lowercase=False),
        "bert lower-cased": lambda: bert(vocabulary, lowercase=True),
        "roberta": lambda: roberta(folder),
        "xlm-roberta": xlm_roberta,
    }[request.param]()
    original.save_pretrained(folder)

    # With a limit of its own it would warn about long texts.
    fast = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=10**9)
    assert type(fast) is type(original)
    state = fast.backend_tokenizer.to_str().encode()  # transformers 5 does not read all parts from the folder

    @functools.cache
    def tokenize(limit: int) -> Tokenizer:
        return Tokenizer(state, max_length=limit)

    return SimpleNamespace(fast=fast, tokenize=tokenize, special_of_pair=fast.num_special_tokens_to_add(pair=True))


def assert_equal(kind: SimpleNamespace, texts: list[Any], limit: int) -> None:
    expected = kind.fast(texts, truncation=True, max_length=limit, return_token_type_ids=True)
    whole = kind.fast(texts)["input_ids"]
    for return_offsets in (False, True):
        batch = kind.tokenize(limit)(texts, return_offsets=return_offsets)
        rows = [slice(start, end) for start, end in zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True)]
        assert [batch.ids[row].tolist() for row in rows] == expected["input_ids"]
        assert [batch.type_ids[row].tolist() for row in rows] == expected["token_type_ids"]
        assert batch.truncated.tolist() == [len(ids) > limit for ids in whole]
    for index, row in enumerate(rows):
        offsets = [*zip(batch.offsets.starts[row].tolist(), batch.offsets.ends[row].tolist(), strict=True)]
        assert offsets == expected[index].offsets
        assert [None if word < 0 else word for word in batch.offsets.words[row]] == expected.word_ids(index)
        assert [None if part < 0 else part for part in batch.offsets.sequences[row]] == expected.sequence_ids(index)


@pytest.mark.parametrize("limit", [5, 6, 16, 17, 64, 511])
def test_difficult_texts_have_the_tokens_of_transformers(kind: SimpleNamespace, limit: int) -> None:
    assert_equal(kind, DIFFICULT, limit)


@pytest.mark.parametrize(("room", "size"), [(2, 300), (12, 6000), (60, 6000), (508, 6000)])
def test_difficult_pairs_have_the_tokens_of_transformers(kind: SimpleNamespace, room: int, size: int) -> None:
    # With room for two tokens, transformers makes the most overflowing combinations of both texts.
    assert_equal(kind, [(first[:size], second[:size]) for first, second in PAIRS], kind.special_of_pair + room)


@pytest.mark.parametrize("room", [1, 3, 13, 61, 507])
def test_difficult_pairs_with_odd_room_have_the_tokens_of_transformers(kind: SimpleNamespace, room: int) -> None:
    # The texts are so short that the tokenizer reads all of them; see the last test.
    size = 16 * (kind.special_of_pair + room)
    assert_equal(kind, [(first[:size], second[:size]) for first, second in PAIRS], kind.special_of_pair + room)


def test_the_tokenizers_know_most_of_the_difficult_texts(kind: SimpleNamespace) -> None:
    unknown = [ids.count(kind.fast.unk_token_id) / len(ids) for ids in kind.fast(DIFFICULT)["input_ids"]]
    assert sum(share < 0.5 for share in unknown) > len(DIFFICULT) / 2


@given(texts=st.lists(any_input, min_size=1, max_size=4), limit=limits)
def test_any_text_has_the_tokens_of_transformers(kind: SimpleNamespace, texts: list[str], limit: int) -> None:
    assert_equal(kind, texts, limit)


@given(pairs=st.lists(st.tuples(*[any_input.map(lambda text: text[:80])] * 2), min_size=1, max_size=4), limit=limits)
def test_any_pair_has_the_tokens_of_transformers(
    kind: SimpleNamespace, pairs: list[tuple[str, str]], limit: int
) -> None:
    assert_equal(kind, pairs, limit)


long_text = st.lists(st.tuples(pieces.filter(len), st.integers(1, 200)), min_size=1, max_size=5).map(
    lambda parts: "".join(piece * times for piece, times in parts)[:3000]
)


@given(text=long_text, limit=st.integers(5, 12))
@settings(max_examples=40)
def test_any_long_text_has_the_tokens_of_transformers(kind: SimpleNamespace, text: str, limit: int) -> None:
    assert_equal(kind, [text], limit)


@given(first=long_text, second=long_text, half=st.integers(5, 6))
@settings(max_examples=25)
def test_any_long_pair_with_even_room_has_the_tokens_of_transformers(
    kind: SimpleNamespace, first: str, second: str, half: int
) -> None:
    # Transformers keeps all overflowing combinations of both texts, so that longer pairs take minutes. These are read
    # in two pieces.
    assert_equal(kind, [(first[:450], second[:450])], kind.special_of_pair + 2 * half)


def test_a_long_pair_with_odd_room_has_the_tokens_of_transformers(kind: SimpleNamespace) -> None:
    # A sixth of the first text is read, and it has fewer tokens than the second text.
    assert_equal(kind, [("hello " * 400, ". , " * 95)], kind.special_of_pair + 21)
