"""Notice that transformers builds another tokenizer than the one in `tokenizer.json`.

For some classes, such as those of BERT and XLM-RoBERTa, it takes the vocabulary alone, and makes the other parts anew
from the settings in `tokenizer_config.json`.
"""

import logging
from pathlib import Path
from typing import Any

import tokenizers

log = logging.getLogger("encort")

_TEXTS = (
    *("Straße CAFÉ cafe\u0301", "\ufb01ne \u00bd \u2167 \uff21\uff22", "中文 안녕하세요 かな"),
    *(" two  spaces\tand a tab ", "don't (stop)!"),
)
"""Texts in which normalizers and pre-tokenizers differ."""


def warn_if_rebuilt(tokenizer: Any, file: Path, version: str) -> None:
    """Warn if a tokenizer gives other tokens than its file.

    Args:
        tokenizer: Tokenizer of transformers.
        file: Its `tokenizer.json`, which may be missing.
        version: Version of transformers.
    """
    if not file.exists():
        return
    saved, built = tokenizers.Tokenizer.from_file(str(file)), tokenizer.backend_tokenizer
    for each in (saved, built):
        each.no_truncation()
        each.no_padding()
    for text in _TEXTS:
        if saved.encode(text).ids != built.encode(text).ids:
            log.warning(
                "%s: transformers %s builds another tokenizer than this file has: %r becomes other tokens; if the "
                "model was trained with the file, set tokenizer_class to PreTrainedTokenizerFast in "
                "tokenizer_config.json",
                file,
                version,
                text,
            )
            return
