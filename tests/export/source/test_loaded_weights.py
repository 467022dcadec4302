"""Weights of a checkpoint that its model does not use, or lacks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from encort.export.source.checkpoint import Checkpoint
from encort.runtime.bundle.manifest import Task

Copy = Callable[[Path], Path]
Refused = Callable[..., None]


def add_weights(folder: Path, *names: str) -> None:
    """Add weights of these names to a checkpoint."""
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, **{name: torch.ones(2) for name in names}}, folder / "model.safetensors", {"format": "pt"})


def set_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.fixture
def encoder(encoder_checkpoint: Path, checkpoint_copy: Copy) -> Path:
    return checkpoint_copy(encoder_checkpoint)


@pytest.fixture
def classifier(classifier_checkpoint: Path, checkpoint_copy: Copy) -> Path:
    return checkpoint_copy(classifier_checkpoint)


@pytest.fixture
def saved_as(encoder: Path) -> Callable[..., Path]:
    """`saved_as("AutoModelForMaskedLM", "bert")` saves a tiny model of this class and architecture."""

    def save(auto_class: str, architecture: str, **settings: Any) -> Path:
        sizes = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 48}
        size = json.loads((encoder / "config.json").read_text())["vocab_size"]
        tokens = {"vocab_size": size, "max_position_embeddings": 34, "pad_token_id": 0}
        config = transformers.AutoConfig.for_model(architecture, **{**sizes, **tokens, **settings})
        getattr(transformers, auto_class).from_config(config).save_pretrained(encoder)
        return encoder

    return save


CRF = ("crf.start_transitions", "crf.end_transitions", "crf.transitions")


@pytest.mark.parametrize("name", ["BertCRF", "BertModel", "BertForTokenClassification", "BertForMaskedLM", None])
def test_the_weights_of_a_crf_are_not_left_out(name: str | None, classifier: Path, refused: Refused) -> None:
    add_weights(classifier, *CRF)
    set_config(classifier, architectures=name and [name])
    expected = (
        "is a BertCRF, and its head" if name == "BertCRF" else "has weights that Bert.* does not use.*crf.*start_tr"
    )
    refused(classifier, expected)


@pytest.mark.parametrize("architectures", [None, [], ["BertModel"], ["BertForMaskedLM"], ["BertForPreTraining"]])
@pytest.mark.parametrize("head", ["AutoModelForSequenceClassification", "AutoModelForTokenClassification"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra"])
def test_a_classifier_under_another_name_does_not_lose_its_head(
    architectures: list[str] | None, head: str, architecture: str, saved_as: Callable[..., Path], refused: Refused
) -> None:
    folder = saved_as(head, architecture)
    set_config(folder, architectures=architectures)
    refused(folder, r"has weights that .* does not use.*classifier\..*name it in \"architectures\" in config.json")


def test_layers_that_the_settings_leave_out_are_named(encoder: Path, refused: Refused) -> None:
    set_config(encoder, num_hidden_layers=2)
    refused(encoder, r"does not use.*encoder\.layer\.2\.attention.*and 12 more")


def test_a_second_encoder_is_not_left_out(classifier: Path, refused: Refused) -> None:
    add_weights(classifier, "encoder.layer.0.attention.self.query.weight")
    refused(classifier, r"does not use.*: encoder\.layer\.0\.attention\.self\.query\.weight\.")


def test_a_pooler_of_another_kind_is_not_left_out(encoder: Path, refused: Refused) -> None:
    add_weights(encoder, "pooler.attention.weight")
    refused(encoder, r"does not use.*pooler\.attention\.weight")


@pytest.mark.parametrize("head", ["AutoModelForMaskedLM", "AutoModelForPreTraining"])
@pytest.mark.parametrize(
    "architecture", ["bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet", "albert"]
)
def test_embeddings_need_no_head_of_pretraining(head: str, architecture: str, saved_as: Callable[..., Path]) -> None:
    folder = saved_as(head, architecture)
    set_config(folder, architectures=["XForMaskedLM"])
    add_weights(folder, "embeddings.position_ids")
    assert Checkpoint.open(str(folder)).task is Task.FEATURE_EXTRACTION


def test_embeddings_need_no_head_of_debertas_authors(saved_as: Callable[..., Path]) -> None:
    folder = saved_as("AutoModel", "deberta-v2")
    add_weights(folder, "lm_predictions.lm_head.dense.weight", "mask_predictions.classifier.weight")
    assert Checkpoint.open(str(folder)).task is Task.FEATURE_EXTRACTION


def test_next_sentences_need_no_masked_language_model(saved_as: Callable[..., Path]) -> None:
    folder = saved_as("AutoModelForPreTraining", "bert")
    set_config(folder, architectures=["BertForNextSentencePrediction"])
    assert Checkpoint.open(str(folder)).task is Task.NEXT_SENTENCE_PREDICTION


@pytest.mark.parametrize("prefix", ["bert.", ""])
def test_a_tagger_needs_no_pooler(prefix: str, saved_as: Callable[..., Path]) -> None:
    folder = saved_as("AutoModelForTokenClassification", "bert")
    add_weights(folder, f"{prefix}pooler.dense.weight", f"{prefix}pooler.dense.bias")
    assert Checkpoint.open(str(folder)).task is Task.TOKEN_CLASSIFICATION


def test_half_a_pooler_is_damage(encoder: Path, refused: Refused) -> None:
    weights = load_file(encoder / "model.safetensors")
    del weights["pooler.dense.bias"]
    save_file(weights, encoder / "model.safetensors", {"format": "pt"})
    refused(encoder, r"lacks weights of its own architecture: pooler\.dense\.bias")


@pytest.mark.parametrize("name", ["BertMeanForSequenceClassification", "OwnForTokenClassification"])
def test_a_class_that_transformers_lacks_is_refused(name: str, classifier: Path, refused: Refused) -> None:
    set_config(classifier, architectures=[name])
    refused(classifier, f"was saved by {name}, which transformers .* does not have")


def test_a_class_of_another_framework_is_read(classifier: Path) -> None:
    set_config(classifier, architectures=["TFBertForSequenceClassification"])
    assert Checkpoint.open(str(classifier)).task is Task.TEXT_CLASSIFICATION


@pytest.mark.parametrize("name", ["config_setfit.json", "model_head.pkl"])
def test_a_setfit_model_does_not_lose_its_head(name: str, encoder: Path, refused: Refused) -> None:
    (encoder / name).write_text("{}")
    refused(encoder, "is a SetFit model, whose head is not a part of its weights")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_weights_under_other_names_are_named_with_those_that_are_lacking(
    prefix: str, classifier: Path, refused: Refused
) -> None:
    weights = {f"{prefix}{name}": tensor for name, tensor in load_file(classifier / "model.safetensors").items()}
    save_file(weights, classifier / "model.safetensors", metadata={"format": "pt"})
    refused(classifier, rf"lacks weights.*: bert\.embed.*has others in their place: {prefix}bert\.embed.*rename")
