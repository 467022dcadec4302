"""Fixtures for the tests of retrieval heads: a tiny masked language model, and files of pairs."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import transformers

from tests.builders import save_tokenizer, vocabulary

THINGS = ["card", "pin", "hello", "play", "lost", "change", *"abcdefgh12345678"]


@pytest.fixture(scope="session")
def tiny_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny masked language model of BERT."""
    folder = tmp_path_factory.mktemp("words")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary()) + 3,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Callable[..., Path]:
    """`pairs(columns, name=)`: a file of queries with their documents, and with these columns also of negatives."""

    def write(columns: Sequence[str] = ("query", "positive"), name: str = "pairs.csv") -> Path:
        rows = [(f"my {thing}", f"the {thing} is", f"hello my {thing}") for thing in THINGS]
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([columns, *(row[: len(columns)] for row in rows)])
        return tmp_path / name

    return write
