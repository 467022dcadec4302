import numpy as np
import pytest
import torch
import transformers

from encort.training.features import IGNORED, Collator, token_columns
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings

TEXTS = ["my card is lost", "hello", ("change the pin", "안녕하세요")]


@pytest.fixture
def tokenize(tiny_encoder):
    return Pretrained.open(str(tiny_encoder), TrainingSettings()).tokenizer


@pytest.fixture
def expected(tiny_encoder):
    """What transformers gives for the same texts, nothing padded."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_encoder)
    rows = [tokenizer(*([text] if isinstance(text, str) else text)) for text in TEXTS]
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_every_row_has_the_tokens_of_its_text(tokenize, expected):
    assert token_columns(tokenize(TEXTS), has_types=True) == expected


def test_without_token_types_there_is_no_column_of_them(tokenize, expected):
    del expected["token_type_ids"]
    assert token_columns(tokenize(TEXTS), has_types=False) == expected


def test_the_names_of_columns_can_begin_otherwise(tokenize, expected):
    columns = token_columns(tokenize(TEXTS), has_types=True, prefix="pair_")
    assert columns == {f"pair_{name}": rows for name, rows in expected.items()}


def test_a_single_text_is_one_row(tokenize, expected):
    assert token_columns(tokenize(TEXTS[:1]), has_types=True) == {name: rows[:1] for name, rows in expected.items()}


def test_no_texts_are_no_rows(tokenize):
    assert token_columns(tokenize([]), has_types=True) == {
        "input_ids": [],
        "token_type_ids": [],
        "attention_mask": [],
    }


def test_columns_are_padded_to_their_own_longest_row():
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


def test_the_padding_of_token_types_is_0():
    batch = Collator(9)([{"token_type_ids": [0, 1]}, {"token_type_ids": [1]}])
    assert batch["token_type_ids"].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [([1, 0], torch.int64), ([0.5, 1.0], torch.float32), ([[1.0, 0.0], [0.0, 0.0]], torch.float32)],
    ids=["a class", "a score", "several classes"],
)
def test_labels_of_texts_stay_what_they_are(labels, dtype):
    batch = Collator(0)([{"labels": label} for label in labels])
    assert batch["labels"].dtype is dtype
    assert batch["labels"].tolist() == labels


def test_lengths_are_no_input():
    assert Collator(0)([{"input_ids": [1], "length": 1}]).keys() == {"input_ids"}


def test_torch_ignores_what_is_marked_as_ignored():
    logits = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    alone = torch.nn.functional.cross_entropy(logits[:1], torch.tensor([0]))
    assert torch.nn.functional.cross_entropy(logits, torch.tensor([0, IGNORED])) == alone


@torch.inference_mode()
def test_alone_equals_among_others(tokenize, tiny_encoder):
    model = transformers.BertModel.from_pretrained(tiny_encoder).eval()
    columns = token_columns(tokenize(TEXTS), has_types=True)
    rows = [{name: values[index] for name, values in columns.items()} for index in range(len(TEXTS))]
    # A padding token that is not 0, as RoBERTa has it: the mask must keep it out.
    together = model(**Collator(5)(rows)).last_hidden_state
    for row, hidden in zip(rows, together, strict=True):
        alone = model(**Collator(5)([row])).last_hidden_state[0]
        np.testing.assert_allclose(hidden[: len(alone)], alone, atol=1e-5)
