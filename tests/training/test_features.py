from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from encort.runtime.text.token_batch import Text
from encort.runtime.text.tokenizer import Tokenizer
from encort.training.features import IGNORED, Collator, token_columns
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings

TEXTS: list[Text] = ["my card is lost", "hello", ("change the pin", "안녕하세요")]


@pytest.fixture
def tokenize(tiny_encoder: Path) -> Tokenizer:
    return Pretrained.open(str(tiny_encoder), TrainingSettings()).tokenizer


@pytest.fixture
def expected(tiny_encoder: Path) -> dict[str, list[Any]]:
    """Return the columns of transformers for the same texts, without padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_encoder)
    rows = [tokenizer(*([text] if isinstance(text, str) else text)) for text in TEXTS]
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_every_row_has_the_tokens_of_its_text(tokenize: Tokenizer, expected: dict[str, list[Any]]) -> None:
    assert token_columns(tokenize(TEXTS), has_types=True) == expected


def test_without_token_types_there_is_no_column_for_them(tokenize: Tokenizer, expected: dict[str, list[Any]]) -> None:
    del expected["token_type_ids"]
    assert token_columns(tokenize(TEXTS), has_types=False) == expected


def test_columns_can_have_a_prefix(tokenize: Tokenizer, expected: dict[str, list[Any]]) -> None:
    columns = token_columns(tokenize(TEXTS), has_types=True, prefix="pair_")
    assert columns == {f"pair_{name}": rows for name, rows in expected.items()}


def test_a_single_text_gives_one_row(tokenize: Tokenizer, expected: dict[str, list[Any]]) -> None:
    assert token_columns(tokenize(TEXTS[:1]), has_types=True) == {name: rows[:1] for name, rows in expected.items()}


def test_no_texts_give_no_rows(tokenize: Tokenizer) -> None:
    assert token_columns(tokenize([]), has_types=True) == {
        "input_ids": [],
        "token_type_ids": [],
        "attention_mask": [],
    }


def test_each_column_is_padded_to_its_longest_row() -> None:
    rows = [
        {"input_ids": [2, 7, 3], "attention_mask": [1, 1, 1], "pair_input_ids": [2], "labels": [5, 6, 5]},
        {"input_ids": [2], "attention_mask": [1], "pair_input_ids": [2, 3], "labels": [5]},
    ]
    batch = {name: tensor.tolist() for name, tensor in Collator(9)(rows).items()}
    assert batch == {
        "input_ids": [[2, 7, 3], [2, 9, 9]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "pair_input_ids": [[2, 9], [2, 3]],
        "labels": [[5, 6, 5], [5, IGNORED, IGNORED]],
    }


def test_token_types_are_padded_with_0() -> None:
    batch = Collator(9)([{"token_type_ids": [0, 1]}, {"token_type_ids": [1]}])
    assert batch["token_type_ids"].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [([1, 0], torch.int64), ([0.5, 1.0], torch.float32), ([[1.0, 0.0], [0.0, 0.0]], torch.float32)],
    ids=["class", "score", "several labels"],
)
def test_labels_of_whole_texts_keep_their_values_and_type(labels: list[Any], dtype: torch.dtype) -> None:
    batch = Collator(0)([{"labels": label} for label in labels])
    assert batch["labels"].dtype is dtype
    assert batch["labels"].tolist() == labels


def test_lengths_are_left_out() -> None:
    assert Collator(0)([{"input_ids": [1], "length": 1}]).keys() == {"input_ids"}


def test_torch_ignores_the_ignored_label() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    alone = torch.nn.functional.cross_entropy(logits[:1], torch.tensor([0]))
    assert torch.nn.functional.cross_entropy(logits, torch.tensor([0, IGNORED])) == alone


@torch.inference_mode()
def test_a_text_gives_the_same_result_alone_and_in_a_batch(tokenize: Tokenizer, tiny_encoder: Path) -> None:
    model = transformers.BertModel.from_pretrained(tiny_encoder).eval()
    columns = token_columns(tokenize(TEXTS), has_types=True)
    rows = [{name: values[index] for name, values in columns.items()} for index in range(len(TEXTS))]
    # The padding token is not 0, as in RoBERTa, so that only the mask can keep it out.
    batched = model(**Collator(5)(rows)).last_hidden_state
    for row, hidden in zip(rows, batched, strict=True):
        alone = model(**Collator(5)([row])).last_hidden_state[0]
        np.testing.assert_allclose(hidden[: len(alone)], alone, atol=1e-5)
