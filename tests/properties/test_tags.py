"""Gold tags become labels of tokens, and spans read from these labels are the gold spans, for every tokenizer."""

import string
import unicodedata
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors

from encort.runtime.common.aggregation import Aggregation
from encort.runtime.common.tag_schemes import Tag, TagScheme
from encort.runtime.tasks.spans import spans, spans_of_tags
from encort.runtime.text.tokenizer import Tokenizer
from encort.training.features import IGNORED
from encort.training.tasks.token_classification import TokenClassification

SCHEMES = {
    "BIO": ["B-A", "B-B", "I-A", "I-B", "O"],
    "bilou behind": ["o", *(f"{label}_{position}" for label in "AB" for position in "bilu")],
    "BMES": ["O", *(f"{position}-{label}" for label in "AB" for position in "BMES")],
}
WORDS = [
    "in",
    "Amsterdam",
    "x",
    "U.S.",
    "Jean-Paul",
    "(a",
    "b).",
    "...",
    "état",
    "e\u0301t",
    "ÉA",
    "½",
    "№",
    "ﬁn",
    "'s",
]
WORDS += ["ที่นี่", "गुरु", "తెలుగు", "각", "👩\u200d👧", "🇩🇪", "❤️", "中文", "あい", "안녕", "\u200bzero", "wid\u200b", "☃"]
CLUSTERS = ["a", "b", ".", "é", "e\u0301", "中", "กำ", "ที่", "गु", "각", "👩\u200d👧", "🇩🇪", "❤️", "한"]
CHARACTERS = [*string.ascii_letters, *string.punctuation, *"".join(CLUSTERS)]
CHARACTERS += unicodedata.normalize("NFKD", "".join(CLUSTERS))


def byte_level(*, add_prefix_space: bool, trim_offsets: bool) -> tokenizers.Tokenizer:
    """Return a tokenizer like RoBERTa's without merges: the space before a word is a token of its own."""
    alphabet = {piece: number for number, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = tokenizers.Tokenizer(models.BPE({**alphabet, "<s>": 256, "</s>": 257}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 257), ("<s>", 256), trim_offsets=trim_offsets, add_prefix_space=add_prefix_space
    )
    return tokenizer


def metaspace(*, prepend_scheme: Any, split: bool, pieces: Sequence[str] = ()) -> tokenizers.Tokenizer:
    """Return a tokenizer like XLM-R's, which has a token for the space before a word, and pieces of its own."""
    vocabulary = [("<unk>", -9.0), *((piece, -2.0) for piece in dict.fromkeys(["▁", *CHARACTERS, *pieces]))]
    tokenizer = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme, split=split)
    return tokenizer


def word_piece(pre_tokenizer: Any, normalizer: Any) -> tokenizers.Tokenizer:
    """Return a tokenizer like BERT's, with one token per character."""
    pieces = ["[UNK]", *CHARACTERS, *(f"##{character}" for character in CHARACTERS)]
    tokenizer = tokenizers.Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    return tokenizer


def metaspace_of_words() -> tokenizers.Tokenizer:
    return metaspace(prepend_scheme="always", split=True, pieces=["▁in", "▁x", "am", "▁U.S.", "▁A"])


TOKENIZERS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    f"byte level, prefix {prefix}, trim {trim}": lambda prefix=prefix, trim=trim: byte_level(
        add_prefix_space=prefix, trim_offsets=trim
    )
    for prefix in (False, True)
    for trim in (False, True)
}
TOKENIZERS |= {
    f"metaspace {scheme}, split {split}": lambda scheme=scheme, split=split: metaspace(
        prepend_scheme=scheme, split=split
    )
    for scheme in ("always", "first", "never")
    for split in (False, True)
}
TOKENIZERS |= {
    "metaspace with longer pieces": metaspace_of_words,
    "bert uncased": lambda: word_piece(pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=True)),
    "bert cased": lambda: word_piece(pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=False)),
    "whitespace": lambda: word_piece(pre_tokenizers.Whitespace(), normalizers.NFC()),
    "whitespace only": lambda: word_piece(pre_tokenizers.WhitespaceSplit(), normalizers.NFKC()),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer(TOKENIZERS[request.param]().to_str().encode(), max_length=512)


def bio(draw: st.DrawFn, count: int) -> list[str]:
    """Return tags in which every span begins with `B-`."""
    tags: list[str] = []
    for _ in range(count):
        inside = [f"I{tags[-1][1:]}"] if tags and tags[-1] != "O" else []
        tags.append(draw(st.sampled_from(["O", "B-A", "B-B", *inside])))
    return tags


@st.composite
def tagged_words(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8))
    return words, bio(draw, len(words))


@st.composite
def tagged_characters(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Return characters and their tags; a space inside of a span has its tag, as in annotated corpora."""
    clusters = draw(st.lists(st.sampled_from(CLUSTERS), min_size=1, max_size=8))
    characters, tags = [], []
    for cluster, tag in zip(clusters, bio(draw, len(clusters)), strict=True):
        if characters and draw(st.booleans()):
            characters.append(" ")
            tags.append(tag if tag.startswith("I") else "O")
        characters += cluster
        tags += [tag, *[tag.replace("B-", "I-")] * (len(cluster) - 1)]
    return characters, tags


def convert(tags: list[str], names: list[str]) -> list[str]:
    """Return BIO tags as the same spans in another scheme."""
    converted = []
    for tag, following in zip(tags, [*tags[1:], "O"], strict=True):
        is_last = following != f"I{tag[1:]}"
        wanted = Tag(tag[2:] or None, begins=tag[0] == "B", ends=is_last and tag != "O")
        meanings = TagScheme(names).tags
        converted.append(next((name for name in names if meanings[name] == wanted), tag))
    return converted


def read_back(
    tokenizer: Tokenizer, row: tuple[list[str], list[str]], noise: int, names: list[str], *, characters: bool
) -> None:
    """Check that the labels of the tokens give the gold spans back, whatever the tokens without labels say."""
    task = TokenClassification(characters=characters).for_rows([])
    example = task.schema.rows.parse({"tokens": row[0], "label": convert(row[1], names)})
    pretrained: Any = SimpleNamespace(tokenizer=tokenizer, has_token_types=False)
    columns = task.encode({name: [value] for name, value in example.items()}, pretrained, SimpleNamespace(labels=names))
    labels = np.array(columns["labels"][0])
    random = np.random.default_rng(noise).integers(0, len(names), len(labels))
    logits = 20 * np.eye(len(names), dtype=np.float32)[np.where(labels == IGNORED, random, labels)]
    batch = tokenizer([example["text"]], return_offsets=True)
    aggregation = Aggregation.SIMPLE if characters else Aggregation.WORD
    (served,) = spans(logits, names, batch, aggregation=aggregation)
    gold = spans_of_tags(example["text"], example["starts"], example["ends"], row[1], TagScheme(SCHEMES["BIO"]))
    assert [(span.label, span.text, span.start) for span in served] == [
        (span.label, span.text, span.start) for span in gold
    ]


@settings(max_examples=25)
@given(row=tagged_words(), noise=st.integers(0, 99), names=st.sampled_from([*SCHEMES.values()]))
def test_tags_of_words_are_learned_where_they_are_read(
    tokenizer: Tokenizer, row: tuple[list[str], list[str]], noise: int, names: list[str]
) -> None:
    read_back(tokenizer, row, noise, names, characters=False)


@settings(max_examples=25)
@given(row=tagged_characters(), noise=st.integers(0, 99), names=st.sampled_from([*SCHEMES.values()]))
def test_tags_of_characters_are_learned_where_they_are_read(
    tokenizer: Tokenizer, row: tuple[list[str], list[str]], noise: int, names: list[str]
) -> None:
    read_back(tokenizer, row, noise, names, characters=True)
