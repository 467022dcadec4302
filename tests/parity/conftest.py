"""Tiny seeded checkpoints of every architecture and head, and eager transformers called directly."""

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from transformers import (
    AlbertConfig,
    BertConfig,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from tests.builders import bert_tokenizer

SIZES = {
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "intermediate_size": 72,
    "initializer_range": 0.3,
    "max_position_embeddings": 66,
}
DISTILBERT = {"dim": 40, "n_layers": 2, "n_heads": 5, "hidden_dim": 72, "initializer_range": 0.3}
DEBERTA: dict[str, Any] = {
    **SIZES,
    "max_position_embeddings": 64,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "layer_norm_eps": 4e-3,
}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODERNBERT: dict[str, Any] = {
    **{**SIZES, "num_hidden_layers": 3, "max_position_embeddings": 64},
    **{**IDS, "cls_token_id": 1, "sep_token_id": 2},
    # Five tokens before and after, so that texts have several blocks.
    **{"local_attention": 10, "norm_eps": 3e-3, "classifier_pooling": "mean"},
}
CONFIGS: dict[str, Any] = {
    "bert": BertConfig(**SIZES, hidden_act="gelu_new", layer_norm_eps=1e-2),
    "roberta": RobertaConfig(**SIZES, pad_token_id=0, type_vocab_size=1, layer_norm_eps=1e-5),
    "xlm-roberta": XLMRobertaConfig(**SIZES, type_vocab_size=1, hidden_act="relu", layer_norm_eps=1e-3),
    "camembert": CamembertConfig(**SIZES, type_vocab_size=2, layer_norm_eps=3e-3),
    "electra": ElectraConfig(**SIZES, embedding_size=24, layer_norm_eps=5e-3),
    "electra-unprojected": ElectraConfig(**SIZES, embedding_size=40, hidden_act="gelu_new"),
    "distilbert": DistilBertConfig(**DISTILBERT, max_position_embeddings=64, activation="relu"),
    # So long that the distances of tokens reach the last bucket; and not a multiple of eight.
    "mpnet": MPNetConfig(**{**SIZES, "max_position_embeddings": 203}, hidden_act="gelu_new", layer_norm_eps=2e-3),
    # Five runs of two groups: the first runs three times, the second twice. transformers 4.57 cannot run fewer.
    "albert": AlbertConfig(
        **{**SIZES, "num_hidden_layers": 5},
        embedding_size=24,
        num_hidden_groups=2,
        inner_group_num=2,
        layer_norm_eps=7e-3,
    ),
    # Buckets of several distances, as version 3 has them.
    "deberta-v3": DebertaV2Config(
        **DEBERTA, position_buckets=12, share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False
    ),
    # One row per distance, projections of their own, and positions and types in the embeddings.
    "deberta-v2": DebertaV2Config(
        **DEBERTA, max_relative_positions=20, type_vocab_size=2, hidden_act="gelu_new", pooler_hidden_act="tanh"
    ),
    "modernbert": ModernBertConfig(**MODERNBERT),
    # Biases, as no published checkpoint has them; a window of one token; and more local layers than global ones.
    "modernbert-biased": ModernBertConfig(
        **{**MODERNBERT, "local_attention": 3, "classifier_pooling": "cls"},
        **{"global_attn_every_n_layers": 2, "hidden_activation": "gelu_new", "classifier_activation": "silu"},
        **dict.fromkeys(["attention_bias", "mlp_bias", "norm_bias", "classifier_bias"], True),
    ),
}
if hasattr(transformers, "EuroBertConfig"):
    EUROBERT: dict[str, Any] = {**SIZES, **IDS, "max_position_embeddings": 64, "rms_norm_eps": 2e-3}
    SHARED = {"num_attention_heads": 10, "num_key_value_heads": 5}
    CONFIGS |= {
        "eurobert": transformers.EuroBertConfig(**{**EUROBERT, **SHARED}),
        "eurobert-biased": transformers.EuroBertConfig(
            **{**EUROBERT, "hidden_act": "relu", "classifier_pooling": "mean"},
            **{"attention_bias": True, "mlp_bias": True},
        ),
    }
LIMITS = {"mpnet": 201}
HEADS = {
    "encoder": ("AutoModel", None),
    # More than ten, so that sorting the labels' numbers as strings would show.
    "text-classification": ("AutoModelForSequenceClassification", [f"class {number}" for number in range(12)]),
    "token-classification": ("AutoModelForTokenClassification", ["O", "B-a", "B-b", "B-c"]),
    "question-answering": ("AutoModelForQuestionAnswering", None),
    "next-sentence-prediction": ("AutoModelForNextSentencePrediction", None),
    "fill-mask": ("AutoModelForMaskedLM", None),
}
if hasattr(transformers, "NomicBertConfig"):
    CONFIGS["nomic-bert"] = transformers.NomicBertConfig(
        **{**SIZES, "max_position_embeddings": 64}, layer_norm_eps=1e-3
    )
if hasattr(transformers, "GteConfig"):
    GTE: dict[str, Any] = {**SIZES, "max_position_embeddings": 64, "pad_token_id": 0}
    CONFIGS["gte"] = transformers.GteConfig(**GTE, layer_norm_eps=2e-3)
    CONFIGS["gte-untyped"] = transformers.GteConfig(**GTE, type_vocab_size=0, hidden_act="relu")
if hasattr(transformers, "JinaEmbeddingsV3Config"):
    JINA: dict[str, Any] = {**SIZES, "max_position_embeddings": 64, "pad_token_id": 0}
    CONFIGS["jina-v3"] = transformers.JinaEmbeddingsV3Config(**JINA, layer_norm_eps=2e-3, hidden_act="gelu_new")


@pytest.fixture(scope="session", params=CONFIGS)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def vocabulary(encoder_checkpoint: Path) -> list[str]:
    """The tiny vocabulary, with the padding token first."""
    return (encoder_checkpoint / "vocab.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="session")
def save_tokenizer(vocabulary: list[str]) -> Callable[..., None]:
    """`save_tokenizer(folder, padding=1)` saves a BERT tokenizer with that id of the padding token."""

    def save(folder: Path, *, padding: int = 0, limit: int = 64, **settings: Any) -> None:
        words = list(vocabulary)
        words[0], words[padding] = words[padding], words[0]
        bert_tokenizer(words, model_max_length=limit, **settings).save_pretrained(folder)

    return save


@pytest.fixture(scope="session")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory, vocabulary: list[str], save_tokenizer: Callable[..., None]
) -> Callable[..., Path]:
    """`checkpoint(architecture, head, **settings)` makes a checkpoint folder once; settings go into its config."""

    @functools.cache
    def make(architecture: str, head: str, **settings: Any) -> Path:
        folder = tmp_path_factory.mktemp(f"{architecture}-{head}")
        loader, labels = HEADS[head]
        config = copy.deepcopy(CONFIGS[architecture])
        if type(config) not in getattr(transformers, loader)._model_mapping:
            pytest.skip(f"transformers has no {head} of {architecture}")
        config.vocab_size = len(vocabulary) + 3
        if labels is not None:
            config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
        config.update(settings)
        torch.manual_seed(len(architecture) + len(head))
        model = getattr(transformers, loader).from_config(config)
        randomize(model.named_parameters())
        model.save_pretrained(folder)
        save_tokenizer(folder, padding=config.pad_token_id, limit=LIMITS.get(architecture, 64))
        return folder

    return make


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """`bundle(checkpoint)` exports a checkpoint once, in full precision."""
    from encort.export.exporter import export_bundle

    @functools.cache
    def export(checkpoint: Path) -> Path:
        # The graph for CUDA cannot be served without a GPU, but its export is a test of its own.
        folder = tmp_path_factory.mktemp("bundles") / "b"
        return export_bundle(checkpoint, folder, variants=["fp32", "cuda-fp32"]).folder

    return export


@pytest.fixture(scope="session")
def eager() -> Callable[..., SimpleNamespace]:
    """`eager(checkpoint, texts)` runs all texts in one padded batch without encort: `tokens`, `hidden`, `result`."""

    @functools.lru_cache(maxsize=4)
    def load(folder: Path) -> tuple[Any, Any]:
        loader = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
        model = loader.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
        return transformers.AutoTokenizer.from_pretrained(folder), model.eval()

    @torch.inference_mode()
    def run(folder: Path, texts: list[Any]) -> SimpleNamespace:
        tokenizer, model = load(folder)
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        if getattr(model.config, "type_vocab_size", 1) > 1:
            inputs["token_type_ids"] = tokens["token_type_ids"]
        hidden = model.base_model(**inputs).last_hidden_state
        return SimpleNamespace(tokens=tokens, hidden=hidden, result=model(**inputs))

    return run


def randomize(parameters: Any) -> None:
    """Set biases and norms to random numbers, because their initial 0 and 1 would hide mistakes."""
    for _, parameter in parameters:
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.2)
