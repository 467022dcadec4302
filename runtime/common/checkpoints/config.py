"""Read `config.json`, and make the configuration that the installed transformers has for it."""

import inspect
import math
import reprlib
from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from encort.runtime.common.checkpoints.files import check_files, read_json
from encort.runtime.common.checkpoints.newer_settings import check_known, translate
from encort.runtime.common.checkpoints.published import translate_published
from encort.runtime.common.errors import CheckpointError

CONFIG_FILE = "config.json"
_ADAPTER_FILE = "adapter_config.json"
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
"""Kinds of text classifiers that transformers knows."""
_OF_CALLERS = frozenset(
    ["return_dict", "torchscript", "output_hidden_states", "output_attentions", "chunk_size_feed_forward"]
)
"""Settings that change the form of a call's outputs, or its memory, and no result: encort calls with the defaults."""
_LARGEST_NUMBER = 2**31
_LARGEST = {"num_hidden_layers": 1_000, "num_labels": 1_000_000}
"""Largest values of settings that decide how much is built before any weight is seen."""


def read_settings(folder: Path, *, may_hold_adapter: bool = False) -> dict[str, Any]:
    """Return the settings in `config.json`, under the names of transformers, not checked yet.

    Everything that loads a checkpoint begins here, so that the kinds and sizes of all its files are checked first.

    Args:
        folder: Folder of the checkpoint.
        may_hold_adapter: Whether the caller merges an adapter that the folder holds.

    Raises:
        CheckpointError: The file is missing, or holds no settings; a file of the folder cannot be read; the checkpoint
            was published with code that computes otherwise than transformers.
    """
    check_files(folder)
    if (folder / _ADAPTER_FILE).exists() and not may_hold_adapter:
        raise CheckpointError(
            f"{folder} holds an adapter of PEFT, not a whole model; load it with PEFT, merge it into its base model "
            "(merge_and_unload()), save the result with its tokenizer (save_pretrained()), and give that folder"
        )
    if not (folder / CONFIG_FILE).exists():
        raise CheckpointError(f"{folder} has no {CONFIG_FILE}, so it is not a checkpoint")
    return translate_published(str(folder), read_json(folder / CONFIG_FILE, dict))


def make_config(name: str, settings: Mapping[str, Any], *, classes: Mapping[str, Any], installed: str) -> Any:
    """Return settings as a configuration of transformers.

    Settings that a newer transformers has written get the names that the installed one knows.

    Args:
        name: Checkpoint that has the settings, for messages.
        settings: Content of `config.json`.
        classes: Configuration classes of transformers by `model_type`, `transformers.CONFIG_MAPPING`.
        installed: Version of transformers.

    Raises:
        CheckpointError: A setting has a wrong type or makes no sense; or the installed transformers cannot read it.
    """
    config_class = _config_class(name, settings.get("model_type"), classes, installed)
    known = _known(config_class)
    settings = translate(name, settings, known)
    check_known(name, settings, known, installed)
    for problem in _problems(settings, config_class):
        raise CheckpointError(f"{name}: {CONFIG_FILE} has {problem}")
    for setting, value in settings.items():
        if isinstance(value, dict) and "model_type" in value:  # one encoder of several
            make_config(f"{name} ({setting})", value, classes=classes, installed=installed)
    try:
        return config_class.from_dict({name: value for name, value in settings.items() if name not in _OF_CALLERS})
    except Exception as error:  # the classes raise errors of many kinds
        raise CheckpointError(f"{name}: {CONFIG_FILE} cannot be used ({error})") from error


def check_parameters(name: str, *, parameters: int, stored_bytes: int) -> None:
    """Refuse settings of a model that is far larger than its weights, before memory is taken for it.

    Args:
        name: Checkpoint, for the message.
        parameters: Parameters of the model that the settings describe.
        stored_bytes: Size of the files with weights, in bytes.

    Raises:
        CheckpointError: There is less than a byte for each parameter.
    """
    if parameters > stored_bytes:
        raise CheckpointError(
            f"{name} lacks weights of its own architecture: {CONFIG_FILE} describes a model of {parameters:,} "
            f"parameters, and its weights have {stored_bytes:,} bytes"
        )


def _config_class(name: str, model_type: Any, classes: Mapping[str, Any], installed: str) -> Any:
    if not isinstance(model_type, str) or not model_type:
        raise CheckpointError(
            f"{name}: {CONFIG_FILE} has {_shown('model_type', model_type)}, expected the name of an architecture, "
            'such as "bert"'
        )
    try:
        return classes[model_type]
    except KeyError:
        raise CheckpointError(
            f"{name} has the architecture {model_type!r}, which transformers {installed} does not know"
        ) from None


def _known(config_class: Any) -> set[str]:
    """Return the names of all settings that the class knows."""
    return {*_made_without_settings(config_class), *_defaults(config_class), *config_class.attribute_map}


def _made_without_settings(config_class: Any) -> Mapping[str, Any]:
    """Return all settings of the class with their defaults; none if it cannot be made without settings."""
    try:
        return dict(config_class().to_dict())
    except Exception:  # the classes raise errors of many kinds
        return {}


def _defaults(config_class: Any) -> dict[str, Any]:
    """Return the defaults of the settings that the class adds to those of every model."""
    return {name: one.default for name, one in inspect.signature(config_class.__init__).parameters.items()}


def _problems(settings: Mapping[str, Any], config_class: Any) -> Iterator[str]:
    """Yield what is wrong with the settings."""
    yield from _label_problems(settings)
    if quantization := settings.get("quantization_config"):
        kind = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        yield (
            f"quantization_config of {kind!r}: its weights are quantized, and encort reads weights of 16 and 32 bits; "
            "use the model that it was made from, or load it with transformers, dequantize() and save_pretrained() it"
        )
    names = settings.get("architectures")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        yield f"{_shown('architectures', names)}, expected a list of names"
    for setting in ("is_decoder", "add_cross_attention"):
        if settings.get(setting):
            yield (
                f"{_shown(setting, settings[setting])}, as decoders have it: their tokens do not see the tokens after "
                "them, and encort is for encoders. If this model was trained as an encoder, set it to false"
            )
    if settings.get("problem_type") not in (None, *PROBLEM_TYPES):
        yield f"{_shown('problem_type', settings['problem_type'])}, expected one of {', '.join(PROBLEM_TYPES)}"
    defaults, synonyms = _defaults(config_class), config_class.attribute_map
    for setting, value in settings.items():
        largest = next((_LARGEST[name] for name in _LARGEST if setting in (name, synonyms.get(name))), None)
        expected = _expected(setting, value, defaults.get(synonyms.get(setting, setting)))
        if largest is not None and not (isinstance(value, int) and 0 <= value <= largest):
            expected = f"a whole number up to {largest:,}"
        if expected is not None:
            yield f"{_shown(setting, value)}, expected {expected}"


def _expected(setting: str, value: Any, default: Any) -> str | None:
    """Return what a setting should be, if it is not that. Its default tells its type; None tells nothing."""
    if isinstance(default, bool):
        return None if value in (True, False, None) else "true or false"
    if isinstance(default, Real):
        if value is None and setting.endswith("_id"):  # such as pad_token_id
            return None
        if isinstance(default, int) and isinstance(value, list):  # such as attention_window, a number for each layer
            return None if all(map(_is_number, value)) else "numbers"
        if not _is_number(value):
            return "a number"
        return "a number above 0" if setting.endswith(("_eps", "_epsilon")) and value <= 0 else None
    return "a text" if isinstance(default, str) and not isinstance(value, str | None) else None


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and abs(value) <= _LARGEST_NUMBER


def _label_problems(settings: Mapping[str, Any]) -> Iterator[str]:
    for setting in ("id2label", "label2id"):
        if not isinstance(settings.get(setting), dict | None):
            yield f"{_shown(setting, settings[setting])}, expected labels by number, or numbers by label"
            return
    labels: dict[str, Any] = settings.get("id2label") or {}
    if {str(number) for number in range(len(labels))} != set(map(str, labels)):
        yield f"{_shown('id2label', labels)}, expected a label for each number from 0 to {len(labels) - 1}"
    for label in labels.values():
        if not isinstance(label, str | Real):
            yield f"the label {reprlib.repr(label)}, expected a text"


def _shown(setting: str, value: Any) -> str:
    return f"{setting} {reprlib.repr(value)}"
