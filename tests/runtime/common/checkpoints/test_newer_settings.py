"""Settings that a newer transformers has written; each is as transformers 5.24 saves it."""

from typing import Any

import pytest
import transformers

from encort.runtime.common.checkpoints.config import make_config
from encort.runtime.common.errors import CheckpointError

INSTALLED = "4.57.6"
BERT = {"model_type": "bert", "transformers_version": "5.24.0", "hidden_size": 24}


def modernbert(*, full: Any = 160_000.0, sliding: Any = 10_000.0, layers: list[str] | None = None) -> dict[str, Any]:
    """Return settings of ModernBERT as transformers 5.24 saves them, shortened."""
    return {
        "model_type": "modernbert",
        "transformers_version": "5.24.0",
        "num_hidden_layers": 5,
        "layer_types": layers or ["full_attention", "sliding_attention"] * 2 + ["full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_theta": full, "rope_type": "default"},
            "sliding_attention": {"rope_theta": sliding, "rope_type": "default"},
        },
    }


def made(settings: dict[str, Any]) -> Any:
    return make_config("folder", settings, classes=transformers.CONFIG_MAPPING, installed=INSTALLED)


needs_older_names = pytest.mark.skipif(
    hasattr(transformers.ModernBertConfig(), "rope_parameters"), reason="this transformers has the newer names"
)


@needs_older_names
def test_rotary_positions_are_read_under_their_older_names() -> None:
    config = made(modernbert(full=20_000.0, sliding=300.0))
    assert (config.global_rope_theta, config.local_rope_theta) == (20_000.0, 300.0)


@needs_older_names
@pytest.mark.parametrize("version", ["4.40.0", "5.24.0", None])
def test_newer_names_are_read_whatever_the_version_says(version: str | None) -> None:
    config = made({**modernbert(full=9.0), "transformers_version": version})
    assert (config.global_rope_theta, config.global_attn_every_n_layers) == (9.0, 2)


@needs_older_names
@pytest.mark.parametrize("value", [None, {}, {"full_attention": {"rope_type": "default"}, "sliding_attention": None}])
def test_rotary_positions_without_a_base_have_the_default(value: Any) -> None:
    config = made({**modernbert(), "rope_parameters": value})
    assert (config.global_rope_theta, config.local_rope_theta) == (160_000.0, 10_000.0)


@needs_older_names
@pytest.mark.parametrize("period", [1, 2, 3, 5])
def test_layers_with_global_attention_are_counted(period: int) -> None:
    layers = ["sliding_attention" if index % period else "full_attention" for index in range(5)]
    assert made(modernbert(layers=layers)).global_attn_every_n_layers == period


NOT_COMPUTED = {
    "another kind of rotary positions": {"full_attention": {"rope_type": "yarn", "rope_theta": 9.0, "factor": 2.0}},
    "a part of each head": {"full_attention": {"rope_theta": 9.0, "partial_rotary_factor": 0.5}},
    "one base for all layers": {"rope_type": "default", "rope_theta": 9.0},
    "other layers": {"chunked_attention": {"rope_theta": 9.0}},
    "a number": 9.0,
}


@needs_older_names
@pytest.mark.parametrize("value", NOT_COMPUTED.values(), ids=NOT_COMPUTED)
def test_rotary_positions_that_are_not_computed_are_refused(value: Any) -> None:
    with pytest.raises(CheckpointError, match="cannot compute with rope_parameters"):
        made({**modernbert(), "rope_parameters": value})


@needs_older_names
@pytest.mark.parametrize("layers", [["sliding_attention"] * 5, ["full_attention"] * 2 + ["sliding_attention"] * 3])
def test_layers_in_another_order_are_refused(layers: list[str]) -> None:
    with pytest.raises(CheckpointError, match="cannot compute with layer_types"):
        made(modernbert(layers=layers))


def test_rotary_positions_of_an_architecture_without_them_are_refused() -> None:
    with pytest.raises(CheckpointError, match="cannot compute with rope_parameters"):
        made({**BERT, "rope_parameters": {"rope_theta": 9.0}})


@needs_older_names
@pytest.mark.parametrize("theta", [10_000.0, 500.0])
def test_the_base_with_which_older_versions_compute_is_accepted(theta: float) -> None:
    settings = {"model_type": "esm", "transformers_version": "5.24.0", "rope_theta": theta}
    if theta == 10_000.0:
        assert made(settings).model_type == "esm"
    else:
        with pytest.raises(CheckpointError, match="does not know its settings rope_theta"):
            made(settings)


def test_an_unknown_setting_of_a_newer_version_is_refused() -> None:
    message = (
        r"saved by transformers 5\.24\.0, and the installed 4\.57\.6 does not know its settings query_scale;.*remove"
    )
    with pytest.raises(CheckpointError, match=message):
        made({**BERT, "query_scale": 0.5})


@pytest.mark.parametrize("version", ["4.57.6", "4.57.9", "4.2.0", "2.11", None, 5, {}])
def test_an_unknown_setting_of_another_version_is_left_alone(version: Any) -> None:
    assert made({**BERT, "transformers_version": version, "query_scale": 0.5}).hidden_size == 24


@pytest.mark.parametrize("version", ["4.58.0", "5.0.0.dev0", "10.1"])
def test_versions_are_compared_as_numbers(version: str) -> None:
    with pytest.raises(CheckpointError, match="query_scale"):
        made({**BERT, "transformers_version": version, "query_scale": 0.5})


def test_settings_without_an_effect_may_be_unknown() -> None:
    extra = {"gradient_checkpointing": False, "directionality": "bidi", "sentence_transformers": {"version": "5.7"}}
    extra |= {"aggregation_strategy": "first", "threshold": 0.4, "null_threshold": -1.5}  # as encort writes them
    assert made({**BERT, **extra, "pooler_type": "first_token_transform", "note": None}).hidden_size == 24


def test_a_model_without_a_cache_may_have_a_setting_for_it() -> None:
    class Own(transformers.PretrainedConfig):  # type: ignore[misc] # untyped
        model_type = "own"

    settings = {"model_type": "own", "transformers_version": "5.24.0", "use_cache": True}
    assert make_config("folder", settings, classes={"own": Own}, installed=INSTALLED).model_type == "own"


def test_synonyms_of_settings_are_known() -> None:
    assert made({"model_type": "distilbert", "transformers_version": "5.24.0", "hidden_size": 24}).dim == 24
