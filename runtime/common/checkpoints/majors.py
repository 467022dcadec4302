"""All differences between transformers 4 and 5 that encort has to know; it works with both.

Nothing here imports transformers: the module is an argument.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

GENERIC_CLASS = "TokenizersBackend"
"""Class under which transformers 5 saves some tokenizers. Their `tokenizer.json` has the format of all others."""
OLDER_GENERIC_CLASS = "PreTrainedTokenizerFast"
"""Class that loads such tokenizers in transformers 4. transformers 5 knows this name too."""
FULL_ATTENTION, SLIDING_ATTENTION = "full_attention", "sliding_attention"
"""Kinds of attention of a layer, by their names in transformers 5."""
_RENAMED = ("additional_special_tokens", "model_input_names")
"""Settings of a tokenizer that transformers 5 leaves out, or has under another name."""


def is_older(library: Any) -> bool:
    """Return whether this is transformers 4.

    Args:
        library: The module `transformers`.
    """
    return not hasattr(library, GENERIC_CLASS)


def tokenizer_loader(library: Any, settings: Mapping[str, Any]) -> Any:
    """Return the class that loads a tokenizer with these settings.

    Args:
        library: The module `transformers`.
        settings: Content of `tokenizer_config.json`.
    """
    if is_older(library) and settings.get("tokenizer_class") == GENERIC_CLASS:
        return getattr(library, OLDER_GENERIC_CLASS)
    return library.AutoTokenizer


def tokenizer_changes(library: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that replace those of transformers 5, which version 4 reads under another name.

    Args:
        library: The module `transformers`.
        settings: Content of `tokenizer_config.json`.
    """
    if not is_older(library):
        return {}
    shared = shared_tokenizer_settings(settings)
    changes = {name: shared[name] for name in _RENAMED if shared.get(name) != settings.get(name)}
    return changes if settings.keys() <= shared.keys() else {**changes, "extra_special_tokens": {}}


def shared_tokenizer_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a tokenizer in the form that transformers 4 and 5 both read.

    Args:
        settings: Content of `tokenizer_config.json`, as either version writes it.
    """
    shared = dict(settings)
    if isinstance(shared.get("extra_special_tokens"), list):
        tokens = shared.pop("extra_special_tokens")
        shared["additional_special_tokens"] = [
            token["content"] if isinstance(token, dict) else token for token in tokens
        ]
    if shared.get("tokenizer_class") == GENERIC_CLASS:
        shared["tokenizer_class"] = OLDER_GENERIC_CLASS
        shared.setdefault("model_input_names", ["input_ids", "attention_mask"])
    return shared


def warmup(library: Any, share: float) -> dict[str, float]:
    """Return the argument of `TrainingArguments` for the share of the steps in which the learning rate rises.

    Args:
        library: The module `transformers`.
        share: From 0 to 1.
    """
    if is_older(library):
        return {"warmup_ratio": share}
    return {"warmup_steps": min(share, math.nextafter(1, 0))}  # from 1 on, it is a number of steps


def mismatched_names(mismatched: Iterable[Any]) -> list[str]:
    """Return the names among the `mismatched_keys` of loading; transformers 5 gives each with both shapes."""
    return [weight if isinstance(weight, str) else weight[0] for weight in mismatched]


def attention_kinds(config: Any) -> list[str]:
    """Return for each layer of ModernBERT whether it has `full_attention` or `sliding_attention`.

    Args:
        config: Configuration of transformers; version 4 has a period in place of the list.
    """
    if getattr(config, "layer_types", None) is not None:
        return list(config.layer_types)
    period = config.global_attn_every_n_layers
    return [SLIDING_ATTENTION if index % period else FULL_ATTENTION for index in range(config.num_hidden_layers)]


def rotary_settings(config: Any, kind: str) -> Mapping[str, Any]:
    """Return `rope_type` and `rope_theta` of the rotary positions of layers with a kind of attention.

    Args:
        config: Configuration of transformers; version 4 has only the bases of ModernBERT.
        kind: Kind of attention, as in `attention_kinds`.
    """
    settings = getattr(config, "rope_parameters", None)
    if settings is not None:
        own: Mapping[str, Any] = settings.get(kind, settings)
        return own
    local = config.local_rope_theta
    is_local = kind == SLIDING_ATTENTION and local is not None
    return {"rope_theta": local if is_local else config.global_rope_theta}
