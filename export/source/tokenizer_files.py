"""The tokenizer files of a bundle, all written from what the checkpoint's tokenizer does.

Other tools read `tokenizer_config.json` and `special_tokens_map.json` beside `tokenizer.json`. Without them they assume
the defaults of the architecture: transformers lowercases the texts of a cased BERT, and knows no limit of tokens.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from encort.export.source.checkpoint import Checkpoint
from encort.runtime.bundle.manifest import TOKENIZER_FILE
from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.output.escaping import dump_json

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"

_GENERIC_CLASS, _BERT_CLASS = "PreTrainedTokenizerFast", "BertTokenizer"
_SETTINGS = {
    "lowercase": "do_lower_case",
    "strip_accents": "strip_accents",
    "handle_chinese_chars": "tokenize_chinese_chars",
    "add_prefix_space": "add_prefix_space",
    "trim_offsets": "trim_offsets",
}
"""Names that transformers gives to settings of the parts of a tokenizer. Its classes change the parts to match."""


def write_tokenizer_files(checkpoint: Checkpoint, folder: Path, *, max_length: int) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`.

    Args:
        checkpoint: Checkpoint with the tokenizer.
        folder: Folder of the bundle.
        max_length: Most tokens of one input, special tokens included.
    """
    text = tokenizer_json(checkpoint, max_length=max_length)
    (folder / TOKENIZER_FILE).write_text(text, encoding="utf-8")
    added = _added_tokens(checkpoint.tokenizer)
    special = dict(checkpoint.tokenizer.special_tokens_map)
    config = {
        "tokenizer_class": _GENERIC_CLASS,
        "model_max_length": max_length,
        "model_input_names": list(checkpoint.tokenizer.model_input_names),
        "padding_side": "right",
        "truncation_side": checkpoint.tokenizer.truncation_side,
        "clean_up_tokenization_spaces": bool(checkpoint.tokenizer.clean_up_tokenization_spaces),
        "added_tokens_decoder": added,
        **special,
        **_settings(json.loads(text)),
    }
    if _is_bert(checkpoint.tokenizer, json.loads(text)):
        config["tokenizer_class"] = _BERT_CLASS
    _write(folder / TOKENIZER_CONFIG_FILE, config)
    flags = {token["content"]: _without_special(token) for token in added.values()}
    _write(folder / SPECIAL_TOKENS_FILE, {name: _flagged(token, flags) for name, token in special.items()})


def tokenizer_json(checkpoint: Checkpoint, *, max_length: int) -> str:
    """Return the tokenizer as JSON, without the padding and truncation that its last use has left in it.

    A tokenizer that cuts the beginning of long texts says so in its truncation; the runtime reads the side there. If
    transformers gives a model with token types none, every token has type 0.

    Args:
        checkpoint: Checkpoint with the tokenizer.
        max_length: Most tokens of one input.

    Raises:
        CheckpointError: The tokenizer gives types, and has no template in which they can be changed.
    """
    backend = checkpoint.tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    if checkpoint.tokenizer.truncation_side == "left":
        backend.enable_truncation(max_length, direction="left")
    text = str(backend.to_str())
    reads_types = getattr(checkpoint.model.config, "type_vocab_size", 1) > 1
    gives_types = "token_type_ids" in checkpoint.tokenizer.model_input_names
    return _without_types(checkpoint, text) if reads_types and not gives_types else text


def _without_types(checkpoint: Checkpoint, text: str) -> str:
    """Return the JSON of a tokenizer with type 0 in all pieces of its template."""
    state = json.loads(text)
    pieces = [piece for part in _parts(state["post_processor"]) for piece in part.values() if isinstance(piece, dict)]
    for piece in pieces:
        if "type_id" in piece:
            piece["type_id"] = 0
    changed = json.dumps(state, ensure_ascii=False)
    if any(type(checkpoint.tokenizer.backend_tokenizer).from_str(changed).encode("a", "a").type_ids):
        raise CheckpointError(
            f"{checkpoint.name}: its tokenizer gives pairs token types, and its model_input_names leaves them out; add "
            "token_type_ids to model_input_names in tokenizer_config.json if the model was trained with them"
        )
    return changed


def _settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the tokenizer's parts under the names that transformers gives them."""
    # A pre-tokenizer comes last, because transformers compares `add_prefix_space` with it.
    parts = [part for kind in ("normalizer", "post_processor", "pre_tokenizer") for part in _parts(state[kind])]
    return {_SETTINGS[name]: value for part in parts for name, value in part.items() if name in _SETTINGS}


def _parts(part: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Yield a part of a tokenizer and, if it is a sequence of parts, each of them."""
    if part is None:
        return
    yield part
    for value in part.values():
        for inner in value if isinstance(value, list) else ():
            if isinstance(inner, dict):
                yield from _parts(inner)


def _is_bert(tokenizer: Any, state: Mapping[str, Any]) -> bool:
    """Return whether the tokenizer is exactly what transformers builds from a vocabulary for BERT.

    transformers 5 builds it anew for this class, and ignores other parts in `tokenizer.json`. transformers.js gives
    token types to this class alone. For all other tokenizers the generic class keeps the parts as they are.
    """
    parts = [state["normalizer"], state["pre_tokenizer"], state["model"]]
    if [part and part.get("type") for part in parts] != ["BertNormalizer", "BertPreTokenizer", "WordPiece"]:
        return False
    model = state["model"]
    usual = (tokenizer.unk_token, "##", 100, True)
    settings = (model["unk_token"], model["continuing_subword_prefix"], model["max_input_chars_per_word"])
    pair = tokenizer.backend_tokenizer.encode("", "")
    has_template = (pair.ids, pair.type_ids) == (
        [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.sep_token_id],
        [0, 0, 1],
    )
    return has_template and (*settings, state["normalizer"]["clean_text"]) == usual


def _added_tokens(tokenizer: Any) -> dict[str, dict[str, Any]]:
    """Return the flags of the tokens that are matched before everything else, by their ids."""
    names = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    tokens = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return {str(number): {name: getattr(token, name) for name in names} for number, token in sorted(tokens.items())}


def _without_special(token: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in token.items() if name != "special"}


def _flagged(token: Any, flags: Mapping[str, Any]) -> Any:
    """Return a special token, or a list of them, with its flags."""
    return [_flagged(item, flags) for item in token] if isinstance(token, list) else flags.get(token, token)


def _write(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(dump_json(value, indent=2) + "\n", encoding="utf-8")
