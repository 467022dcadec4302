"""Small checkpoints with seeded random weights: every architecture and head, and tokenizers of the published kinds."""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from encort.export.verification.samples import sample_texts

LIMIT = 90
"""Most tokens of a text."""
_UNKNOWN = "[UNK]"
_SPECIAL = ["[PAD]", _UNKNOWN, "[CLS]", "[SEP]", "[MASK]"]
_WORDPIECE, _BYTES, _UNIGRAM = "WordPiece", "byte-level BPE", "Unigram"
_SIZES: dict[str, Any] = {
    **{"hidden_size": 60, "num_hidden_layers": 3, "num_attention_heads": 5, "intermediate_size": 92},
    **{"max_position_embeddings": LIMIT, "pad_token_id": 0, "initializer_range": 0.1},
}
_POSITIONS_AFTER_PADDING = {"max_position_embeddings": LIMIT + 1}
_RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
_ARCHITECTURES: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "BERT": ("BertConfig", _WORDPIECE, {}),
    "RoBERTa": ("RobertaConfig", _BYTES, {**_POSITIONS_AFTER_PADDING, "type_vocab_size": 1}),
    "XLM-RoBERTa": ("XLMRobertaConfig", _UNIGRAM, {**_POSITIONS_AFTER_PADDING, "type_vocab_size": 1}),
    "CamemBERT": ("CamembertConfig", _UNIGRAM, {**_POSITIONS_AFTER_PADDING, "type_vocab_size": 1}),
    "ELECTRA": ("ElectraConfig", _WORDPIECE, {"embedding_size": 28}),
    "DistilBERT": ("DistilBertConfig", _WORDPIECE, {}),
    "MPNet": ("MPNetConfig", _WORDPIECE, {"max_position_embeddings": LIMIT + 2, "pad_token_id": 1}),
    "ALBERT": ("AlbertConfig", _UNIGRAM, {"embedding_size": 28, "num_hidden_groups": 1}),
    "DeBERTa-v2": ("DebertaV2Config", _UNIGRAM, {**_RELATIVE, "max_relative_positions": 40, "type_vocab_size": 2}),
    "DeBERTa-v3": (
        "DebertaV2Config",
        _UNIGRAM,
        {**_RELATIVE, "position_buckets": 16, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    ),
    "ModernBERT": ("ModernBertConfig", _BYTES, {"local_attention": 14, "cls_token_id": 2, "sep_token_id": 3}),
    "EuroBERT": ("EuroBertConfig", _BYTES, {"num_attention_heads": 10, "num_key_value_heads": 5}),
    "NomicBERT": ("NomicBertConfig", _WORDPIECE, {}),
    "GTE": ("GteConfig", _UNIGRAM, {}),
    "jina-embeddings-v3": ("JinaEmbeddingsV3Config", _UNIGRAM, {}),
}
"""Configuration class of transformers, kind of the tokenizer, and settings, by the name of the architecture."""
HEADS: Mapping[str, tuple[str, list[str]]] = {
    "embeddings": ("AutoModel", []),
    "text classification": ("AutoModelForSequenceClassification", ["a", "b", "c"]),
    "tagging": ("AutoModelForTokenClassification", ["O", "B-x", "I-x"]),
    "question answering": ("AutoModelForQuestionAnswering", []),
    "next sentence": ("AutoModelForNextSentencePrediction", []),
    "fill-mask": ("AutoModelForMaskedLM", []),
}
"""Class of transformers that makes the model, and its labels, by the name of the head."""


def architectures() -> Iterator[tuple[str, str]]:
    """Yield the name of each architecture that the installed transformers has, and the kind of its tokenizer."""
    for name, (config, kind, _) in _ARCHITECTURES.items():
        if hasattr(transformers, config):
            yield name, kind


def save_checkpoint(architecture: str, head: str, folder: Path) -> bool:
    """Save a checkpoint; return whether transformers has this head for the architecture."""
    config_class, kind, settings = _ARCHITECTURES[architecture]
    class_name, labels = HEADS[head]
    loader, tokenizer = getattr(transformers, class_name), _tokenizer(kind)
    config = getattr(transformers, config_class)(**{**_SIZES, **settings}, vocab_size=len(tokenizer))
    if type(config) not in loader._model_mapping:
        return False
    if labels:
        config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    torch.manual_seed(zlib.crc32(f"{architecture}, {head}".encode()))
    model = loader.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() == 1:  # biases and norms begin as 0 and 1, which would hide mistakes
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return True


def _tokenizer(kind: str) -> Any:
    """Return a tokenizer that was trained on the texts with which exports are verified."""
    model: Any
    trainer: Any
    splitter: Any
    normalizer: Any = None
    special: Any = {"special_tokens": _SPECIAL, "show_progress": False}
    if kind == _WORDPIECE:
        model, trainer = models.WordPiece(unk_token=_UNKNOWN), trainers.WordPieceTrainer(vocab_size=500, **special)
        normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    elif kind == _BYTES:
        splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        model, trainer = models.BPE(), trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, **special)
    else:
        normalizer, splitter = normalizers.NFKC(), pre_tokenizers.Metaspace()
        model, trainer = models.Unigram(), trainers.UnigramTrainer(vocab_size=700, unk_token=_UNKNOWN, **special)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = splitter
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.train_from_iterator(sample_texts(), trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {f"{name.strip('[]').lower()}_token": name for name in _SPECIAL}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=LIMIT, **names)
