"""A tokenizer that gives its model no token types: a pair has type 0 throughout, as in transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import encort
from encort.export.exporter import export_bundle

PAIR = ("my card is lost", "change the pin")
SETTINGS = {
    "names without types": {"model_input_names": ["input_ids", "attention_mask"]},
    "a generic class of transformers 5": {"tokenizer_class": "TokenizersBackend"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_pair_has_one_type_if_the_tokenizer_gives_none(
    settings: dict[str, Any],
    classifier_checkpoint: Path,
    checkpoint_copy: Callable[[Path], Path],
    edit_json: Callable[..., None],
    output: Path,
) -> None:
    folder = checkpoint_copy(classifier_checkpoint)
    ids = transformers.AutoTokenizer.from_pretrained(folder)(*PAIR, return_tensors="pt")["input_ids"]
    edit_json(folder / "tokenizer_config.json", **settings)
    export_bundle(folder, output, variants=["fp32"])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with encort.load(output) as loaded, torch.inference_mode():
        expected = model(ids).logits.softmax(-1)[0].numpy()
        other = model(ids, token_type_ids=(ids.cumsum(1) > ids.sum() // 2).long()).logits.softmax(-1)[0].numpy()
        np.testing.assert_allclose(list(loaded.classify([PAIR])[0].scores.values()), expected, atol=1e-5)
    assert not np.allclose(expected, other, atol=1e-3), "the types of this model change its results"
