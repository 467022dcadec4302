"""Read `sentence_bert_config.json`: what sentence-transformers does around the encoder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import normalizers

from encort.runtime.common.checkpoints.files import read_json
from encort.runtime.common.errors import CheckpointError

_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Names of the file; early versions named it after the architecture."""
_WORDS = "fill-mask"
_TASKS = ("feature-extraction", "sequence-classification", _WORDS)
_OUTPUTS = ("last_hidden_state", "logits")
_UNSUPPORTED = (
    *("tokenizer_args", "processor_kwargs", "config_args", "config_kwargs", "processing_kwargs"),
    *("tokenizer_name_or_path", "query_length", "document_length", "query_expansion"),
)
"""Settings that change the tokens of a text or the encoder's configuration."""


@dataclass(frozen=True, kw_only=True)
class TransformerSettings:
    """Settings of the module `Transformer`.

    Attributes:
        max_length: Largest number of tokens of one input; None: that of the tokenizer.
        lower_case: Whether texts are lowercased before the tokenizer's own normalizer.
        predicts_words: Whether it gives logits of words in place of hidden states.
    """

    max_length: int | None = None
    lower_case: bool = False
    predicts_words: bool = False

    @classmethod
    def read(cls, folder: Path) -> "TransformerSettings":
        """Read the settings in the folder of the encoder, which may have none.

        Raises:
            CheckpointError: The file is damaged, or asks for something that a bundle cannot do.
        """
        file = next((folder / name for name in _FILES if (folder / name).exists()), None)
        if file is None:
            return cls()
        settings = read_json(file, dict)
        _check_supported(file, settings)
        limit, lower_case = settings.get("max_seq_length"), settings.get("do_lower_case") or False
        if limit is not None and (type(limit) is not int or limit < 1):
            raise CheckpointError(f"{file}: max_seq_length is {limit!r}, expected a whole number above 0")
        if not isinstance(lower_case, bool):
            raise CheckpointError(f"{file}: do_lower_case is {lower_case!r}, expected true or false")
        return cls(max_length=limit, lower_case=lower_case, predicts_words=settings.get("transformer_task") == _WORDS)


def _check_supported(file: Path, settings: Mapping[str, Any]) -> None:
    task = settings.get("transformer_task", _TASKS[0])
    if task not in _TASKS:
        raise CheckpointError(f"{file}: transformer_task is {task!r}; encort exports {' and '.join(_TASKS)}")
    for name in _UNSUPPORTED:
        if settings.get(name):
            raise CheckpointError(f"{file}: {name} is {settings[name]!r}, which a bundle cannot do; leave it out")
    text = (settings.get("modality_config") or {"text": {}}).get("text")
    output = text.get("method_output_name", _OUTPUTS[0]) if isinstance(text, dict) else text
    if output not in _OUTPUTS:
        raise CheckpointError(f"{file}: modality_config reads {output!r} of the encoder, expected one of {_OUTPUTS}")


def lower_case(tokenizer: Any) -> None:
    """Lowercase texts before the tokenizer's own normalizer, as sentence-transformers does for `do_lower_case`.

    Args:
        tokenizer: Tokenizer of the tokenizers library, which is changed.
    """
    state = json.loads(tokenizer.to_str())["normalizer"] or {}
    if "Lowercase" not in [part["type"] for part in state.get("normalizers", [state]) if part]:
        own = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
