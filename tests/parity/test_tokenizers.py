"""`Tokenizer` gives the tokens of the fast tokenizers of transformers, for any text."""

import functools
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors

from encort.runtime.text.tokenizer import Tokenizer

settings.register_profile("encort", deadline=None)
settings.load_profile("encort")

DIFFICULT = [
    "",
    " ",
    "\t\n\r\x0b\x0c\u0085\u2028\u2029",
    "hello my card is lost",
    "Hello, MY Card!",
    "👨‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇰🇷 ❤️",
    "😀" * 40,
    "שלום עולם مرحبا بالعالم \u202eabc\u202c",
    "e\u0301 é n\u0303o\u0308 " + "a" + "\u0301" * 30,
    "\u0301\u0308 \u20dd",
    "中文字符 漢字 かな カナ ﾊﾝｶｸ \uff46\uff55\uff4c\uff4c",
    "中文" * 60,
    "안녕하세요 하이 \u1112\u1161\u11ab 각힣",
    "a\0b \0 c",
    "\x01\x7f\u200b\u200d\ufeff\ufffd\u00ad",
    "[MASK] [CLS] [SEP] [PAD] [UNK] my[MASK]card [mask] [MASK ]",
    "<mask> <s> </s> <pad> <unk> my <mask>card<mask> <MASK> < mask>",
    "[MASK]" * 30 + "<mask>" * 30,
    "   my   card   <mask>   [MASK]   ",
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101 + " " + "d" * 5000,
    "1234567890 3.14 1,000 ½ ² Ⅷ ①",
    "don't we'll I'M it's o'clock --- ... ?!?!",
    "Straße ΣΑΣ ΌΣΟΣ İstanbul \u0131I ﬁne Ǆ ǆ",
    "my_card@bank.com https://example.com/?q=안녕#x",
    "▁my ▁ card Ġmy ##ing",
    "\U0010ffff \U000e0041 \ue000 \ufdd0 \uffff",
    "the card " * 100,
]
PAIRS = [
    ("", ""),
    ("", "my card is lost"),
    ("my card is lost", ""),
    ("hello?", "the card " * 60),
    ("the card " * 60, "hello?"),
    ("the card " * 60, "my pin " * 60),
    ("my <mask> card", "[MASK] is lost"),
    *zip(DIFFICULT, reversed(DIFFICULT), strict=True),
]
KINDS = ["bert cased", "bert lower-cased", "roberta", "xlm-roberta"]
CORPUS = ["hello my card is lost", "안녕하세요 하이", "the card changed, playing played", "é 😀 中文", *DIFFICULT[4:16]]

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
pieces = any_text | st.sampled_from(DIFFICULT) | st.text("aA é\u0301가中😀.[]<mask>\n", max_size=20)
any_input = st.lists(pieces, max_size=4).map("".join)
limits = st.integers(5, 24)


def bert(vocabulary: list[str], folder: Path, *, lowercase: bool) -> Any:
    characters = "".join(DIFFICULT)
    letters = sorted({*characters, *characters.lower(), *unicodedata.normalize("NFD", characters)} - {*" \n\t\r\0"})
    letters = [letter for letter in letters if letter.isprintable()]
    rows = dict.fromkeys([*vocabulary, "Hello", "MY", "##ß", *letters, *(f"##{letter}" for letter in letters)])
    (folder / "vocab.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), do_lower_case=lowercase)


def roberta(folder: Path) -> Any:
    trained = tokenizers.ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(CORPUS, vocab_size=340, min_frequency=1, special_tokens=special)
    vocabulary, merges = trained.save_model(str(folder))
    return transformers.RobertaTokenizerFast(vocab_file=vocabulary, merges_file=merges)


def xlm_roberta() -> Any:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = ["▁", "▁hello", "▁card", "▁my", "▁the", "lost", "▁안녕", "하세요", "▁하이", "中文", "ing", "<mask>"]
    letters = sorted({letter for letter in "".join(CORPUS) if letter.isprintable()} - {" ", "▁", "😀"})
    scores = [*((word, 0.0) for word in special), *((word, -2.0 - number / 8) for number, word in enumerate(words))]
    scores += [(letter, -9.0 - number / 100) for number, letter in enumerate(letters)]
    backend = tokenizers.Tokenizer(models.Unigram(scores, unk_id=3))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    backend.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"],
        pair=["<s>", "$A", "</s>", "</s>", "$B", "</s>"],
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return transformers.XLMRobertaTokenizerFast(tokenizer_object=backend)


@pytest.fixture(scope="module", params=KINDS)
def kind(
    request: pytest.FixtureRequest, vocabulary: list[str], tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """The tokenizer of transformers, `fast`, and of encort, `tokenize(limit)`, from the same folder."""
    folder = tmp_path_factory.mktemp("tokenizer")
    original = {
        "bert cased": lambda: bert(vocabulary, folder, lowercase=False),
        "bert lower-cased": lambda: bert(vocabulary, folder, lowercase=True),
        "roberta": lambda: roberta(folder),
        "xlm-roberta": xlm_roberta,
    }[request.param]()
    original.save_pretrained(folder)

    @functools.cache
    def tokenize(limit: int) -> Tokenizer:
        return Tokenizer((folder / "tokenizer.json").read_bytes(), max_length=limit)

    # With a limit of its own it would warn about long texts.
    fast = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=10**9)
    assert type(fast) is type(original)
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


@pytest.mark.parametrize("room", [2, 12, 60, 508])
def test_difficult_pairs_have_the_tokens_of_transformers(kind: SimpleNamespace, room: int) -> None:
    assert_equal(kind, PAIRS, kind.special_of_pair + room)


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


@given(first=long_text, second=long_text, half=st.integers(5, 8))
@settings(max_examples=40)
def test_any_long_pair_with_even_room_has_the_tokens_of_transformers(
    kind: SimpleNamespace, first: str, second: str, half: int
) -> None:
    # Transformers keeps all overflowing combinations of both texts, so that longer pairs take minutes.
    assert_equal(kind, [(first[:700], second[:700])], kind.special_of_pair + 2 * half)


def test_a_long_pair_with_odd_room_has_the_tokens_of_transformers(kind: SimpleNamespace) -> None:
    # A sixth of the first text is read, and it has fewer tokens than the second text.
    assert_equal(kind, [("hello " * 400, ". , " * 95)], kind.special_of_pair + 21)
