"""Settings of checkpoints that were published with code of their own, under the names of transformers' own classes.

The code is never run. transformers translates the names of the weights when it loads them.
"""

from collections.abc import Mapping
from typing import Any

from encort.runtime.common.errors import CheckpointError

_NOMIC_BERT_NAMES = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
}
# By the name of a setting: the default of the published code, and the value with which transformers computes.
_NOMIC_BERT_COMPUTED: Mapping[str, tuple[Any, Any]] = {
    "rotary_emb_fraction": (0.0, 1.0),
    "rotary_emb_interleaved": (False, False),
    "rotary_emb_scale_base": (None, None),
    "rotary_scaling_factor": (None, None),
    "qkv_proj_bias": (True, False),
    "mlp_fc1_bias": (True, False),
    "mlp_fc2_bias": (True, False),
    "norm_mlp": (False, False),
    "use_rms_norm": (False, False),
    "prenorm": (False, False),
    "parallel_block": (False, False),
    "causal": (False, False),
    "moe_every_n_layers": (0, 0),
}
_GTE_COMPUTED: Mapping[str, tuple[Any, Any]] = {
    "layer_norm_type": ("layer_norm", "layer_norm"),
    "position_embedding_type": ("rope", "rope"),
    "pack_qkv": (True, True),
    "logn_attention_scale": (False, False),
    "logn_attention_clip1": (False, False),
}
_JINA_COMPUTED: Mapping[str, tuple[Any, Any]] = {"position_embedding_type": ("absolute", "rotary")}
_GATED = {"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid"}
"""Activation of the gate, by NomicBERT's name of the feed-forward layers."""
_OF_THE_CODE = frozenset(
    [
        *("auto_map", "use_flash_attn", "fused_bias_fc", "fused_dropout_add_ln", "use_xentropy", "dense_seq_output"),
        *("parallel_block_tied_norm", "max_trained_positions", "unpad_inputs", "use_memory_efficient_attention"),
    ]
)
"""Settings of the published code that change no result of the models that are translated."""


def translate_published(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under the names of transformers if they are in the form of published code that encort knows.

    NomicBERT (`nomic-ai/nomic-embed-text-v1.5`), GTE (`Alibaba-NLP/new-impl`) and jina-embeddings-v3 are known.

    Args:
        name: Checkpoint, for messages.
        settings: Content of `config.json`.

    Raises:
        CheckpointError: The published code computes with a setting in a way that transformers does not.
    """
    if settings.get("model_type") == "nomic_bert" and ("n_embd" in settings or "auto_map" in settings):
        return _nomic_bert(name, settings)
    if settings.get("model_type") == "new":
        return _gte(name, settings)
    if settings.get("model_type") == "xlm-roberta" and "lora_adaptations" in settings:
        return _jina(name, settings)
    return dict(settings)


def _nomic_bert(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    has_own_names = "n_embd" in settings
    rest = _checked(name, settings, _NOMIC_BERT_COMPUTED, has_defaults=has_own_names)
    renamed = {_NOMIC_BERT_NAMES.get(setting, setting): value for setting, value in rest.items()}
    if has_own_names:
        # The published code widens these two to a multiple.
        renamed["intermediate_size"] = _multiple(renamed.get("intermediate_size"), 256)
        renamed["vocab_size"] = _multiple(renamed.get("vocab_size"), renamed.pop("pad_vocab_size_multiple", 1))
        gate = renamed.pop("activation_function", "gelu_new")
        if gate not in _GATED:
            raise _refused(name, "activation_function", gate)
        renamed["hidden_act"] = _GATED[gate]
        renamed["rope_parameters"] = {"rope_type": "default", "rope_theta": renamed.pop("rotary_emb_base", 10_000)}
    return renamed


def _gte(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    rest = _checked(name, settings, _GTE_COMPUTED, has_defaults=True)
    classes = [str(each).replace("New", "Gte", 1) for each in rest.pop("architectures", None) or ()]
    theta, scaling = rest.pop("rope_theta", 10_000.0), rest.pop("rope_scaling", None)
    rotary = {"rope_type": "default", "rope_theta": theta}
    if scaling is not None:
        rotary = _ntk(name, theta, scaling, rest.get("hidden_size"), rest.get("num_attention_heads"))
    own = {"model_type": "gte", "architectures": classes, "rope_parameters": rotary}
    return {"pad_token_id": None, **rest, **own}


def _jina(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    rest = _checked(name, settings, _JINA_COMPUTED, has_defaults=True)
    for setting in ("lora_alpha", "lora_rank"):
        if not isinstance(rest.get(setting), int | float) or rest[setting] <= 0:
            raise _refused(name, setting, rest.get(setting))
    rotary = {"rope_type": "default", "rope_theta": rest.pop("rotary_emb_base", 10_000.0)}
    own = {"model_type": "jina_embeddings_v3", "architectures": ["JinaEmbeddingsV3Model"]}
    return {**rest, **own, "rope_parameters": rotary}


def _ntk(name: str, theta: Any, scaling: Any, hidden: Any, heads: Any) -> dict[str, Any]:
    """Return fixed NTK scaling of rotary positions as a larger base and a linear scaling, which is the same."""
    factor = scaling.get("factor") if isinstance(scaling, dict) and scaling.get("type") == "ntk" else None
    numbers = [theta, factor, hidden, heads]
    is_plain = all(isinstance(number, int | float) and number > 0 for number in numbers)
    if not is_plain or scaling.get("mixed_b") is not None:
        raise _refused(name, "rope_scaling", scaling)
    return {"rope_type": "linear", "rope_theta": theta * factor, "factor": float(factor ** (2 / (hidden // heads)))}


def _checked(
    name: str, settings: Mapping[str, Any], computed: Mapping[str, tuple[Any, Any]], *, has_defaults: bool
) -> dict[str, Any]:
    """Return the settings without those of the published code alone, which are checked."""
    for setting, (default, expected) in computed.items():
        value = settings.get(setting, default if has_defaults else expected)
        if value != expected and (value or expected):
            raise _refused(name, setting, value)
    return {
        setting: value for setting, value in settings.items() if setting not in computed and setting not in _OF_THE_CODE
    }


def _multiple(value: Any, of: Any) -> Any:
    """Return the number, widened to a multiple; values of other types are left to the check of all settings."""
    is_number = isinstance(value, int) and isinstance(of, int) and of > 0
    return -(-value // of) * of if is_number else value


def _refused(name: str, setting: str, value: Any) -> CheckpointError:
    return CheckpointError(
        f"{name}: its own code (trust_remote_code), which encort never runs, computes with {setting}={value!r}; the "
        "class of transformers in its place does not"
    )
