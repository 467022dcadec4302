"""Settings that a newer transformers writes: read them under the names of the installed version, or refuse them.

An older transformers ignores names that it does not know, and computes with its own defaults.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from encort.runtime.common.checkpoints.weights import shortened
from encort.runtime.common.errors import CheckpointError

_ROPE = "rope_parameters"
_ROPE_BY_LAYERS = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}
"""ModernBERT's settings for the rotary positions of each kind of layer."""
_EVERY = "global_attn_every_n_layers"
_COMPUTED: Mapping[str, Mapping[str, Any]] = {"esm": {"rope_theta": 10_000.0}}
"""Values of newer settings with which older versions compute, by `model_type`."""
_WITHOUT_EFFECT = frozenset(
    [
        # Of every model.
        *("model_type", "architectures", "transformers_version", "auto_map", "torch_dtype", "dtype", "num_labels"),
        "use_cache",  # of decoders
        *("_name_or_path", "_commit_hash", "_attn_implementation", "_attn_implementation_autoset"),
        # Left in widely used checkpoints by early transformers and their authors.
        *("directionality", "gradient_checkpointing", "output_past", "model_name", "language", "adapters"),
        *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head"),
        *("pooler_type", "sinusoidal_pos_embds", "tie_weights_", "down_scale_factor", "gap_size"),
        *("net_structure_type", "num_memory_blocks", "layers_to_keep", "pretraining_tp"),
        # Of sentence-transformers, transformers.js and encort, which read them themselves.
        *("sentence_transformers", "sbert_ce_default_activation_function", "transformers.js_config"),
        *("aggregation_strategy", "labelled_tokens", "threshold", "null_threshold"),
    ]
)
"""Settings that may be unknown, since no model computes with them."""


def translate(name: str, settings: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return settings with the names that the installed transformers knows, where older ones say the same.

    Args:
        name: Checkpoint, for messages.
        settings: Content of `config.json`.
        known: Names that the installed transformers knows for this architecture.

    Raises:
        CheckpointError: The installed transformers cannot compute what a setting asks for.
    """
    translated = {
        setting: value
        for setting, value in settings.items()
        if setting in known or _COMPUTED.get(str(settings.get("model_type")), {}).get(setting) != value
    }
    if _ROPE in translated and _ROPE not in known:
        translated |= _rope_theta(name, translated.pop(_ROPE), known)
    if _EVERY in known and isinstance(translated.get("layer_types"), list):
        translated[_EVERY] = _period(name, translated.pop("layer_types"))
    return translated


def check_known(name: str, settings: Mapping[str, Any], known: Collection[str], installed: str) -> None:
    """Refuse settings of a newer transformers that the installed version does not know.

    Args:
        name: Checkpoint, for messages.
        settings: Settings, after `translate`.
        known: Names that the installed transformers knows for this architecture.
        installed: Version of transformers.

    Raises:
        CheckpointError: There are such settings.
    """
    saved = settings.get("transformers_version")
    if _version(saved) <= _version(installed):
        return  # Older versions, and users, leave settings behind that nothing reads.
    unknown = [
        setting
        for setting, value in settings.items()
        if value is not None and setting not in known and setting not in _WITHOUT_EFFECT
    ]
    if unknown:
        raise CheckpointError(
            f"{name} was saved by transformers {saved}, and the installed {installed} does not know its settings "
            f"{shortened(unknown)}; save it with the installed version, or remove those from config.json that do not "
            "change results"
        )


def _rope_theta(name: str, value: Any, known: Collection[str]) -> dict[str, Any]:
    """Return the base of rotary positions under its older names."""
    if value is None:
        return {}
    names = _ROPE_BY_LAYERS if set(_ROPE_BY_LAYERS.values()) <= set(known) else {}
    if not names and "rope_theta" in known:
        names, value = {"": "rope_theta"}, {"": value}
    if not names or not isinstance(value, dict) or not value.keys() <= names.keys():
        raise _not_computed(name, _ROPE, value)
    thetas = {names[layers]: _theta(name, parameters or {}) for layers, parameters in value.items()}
    return {setting: theta for setting, theta in thetas.items() if theta is not None}


def _theta(name: str, parameters: Any) -> Any:
    """Return the base of plain rotary positions; None for the default."""
    if not isinstance(parameters, dict) or not parameters.keys() <= {"rope_type", "rope_theta"}:
        raise _not_computed(name, _ROPE, parameters)
    if parameters.get("rope_type", "default") != "default":
        raise _not_computed(name, _ROPE, parameters)
    return parameters.get("rope_theta")


def _period(name: str, layer_types: list[Any]) -> int:
    """Return the number `n` for which exactly every `n`th layer, the first one included, has global attention."""
    for period in range(1, len(layer_types) + 1):
        expected = ["sliding_attention" if index % period else "full_attention" for index in range(len(layer_types))]
        if layer_types == expected:
            return period
    raise _not_computed(name, "layer_types", layer_types)


def _not_computed(name: str, setting: str, value: Any) -> CheckpointError:
    return CheckpointError(
        f"{name}: the installed transformers cannot compute with {setting} {value!r} in config.json; "
        "its results would differ"
    )


def _version(version: Any) -> tuple[int, ...]:
    """Return the first two numbers of a version; none for what is no version."""
    match = re.match(r"(\d+)\.(\d+)", str(version))
    return () if match is None else tuple(map(int, match.groups()))
