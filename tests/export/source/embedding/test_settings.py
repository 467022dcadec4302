import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encort.export.exporter import export_bundle
from encort.export.source.embedding.poolings import Poolings
from encort.export.source.embedding.prompts import PromptSettings
from encort.export.source.embedding.settings import EmbeddingSettings
from encort.export.source.embedding.transformer_settings import TransformerSettings
from encort.runtime.bundle.manifest import Embedding, Pooling, Similarity
from encort.runtime.common.errors import CheckpointError

MODULES = {
    "transformer": {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    "pooling": {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    "dense": {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    "normalize": {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
}


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(json.dumps(value))


def sentence_transformers(folder: Path, *modules: str, **modes: bool) -> Path:
    write(folder, "modules.json", [MODULES[name] for name in ("transformer", "pooling", *modules)])
    off = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": False}
    write(folder, "1_Pooling/config.json", {"word_embedding_dimension": 40, **off, **modes})
    return folder


def test_a_plain_checkpoint_is_pooled_by_mean_and_normalized(tmp_path: Path) -> None:
    assert EmbeddingSettings.read(tmp_path) == EmbeddingSettings(
        encoder_folder=tmp_path,
        transformer=TransformerSettings(),
        poolings=Poolings([Pooling.MEAN]),
        modules=(),
        normalize=True,
        prompts=PromptSettings(),
    )


@pytest.mark.parametrize(
    ("mode", "pooling"), [("pooling_mode_cls_token", Pooling.CLS), ("pooling_mode_mean_tokens", Pooling.MEAN)]
)
@pytest.mark.parametrize("modules", [[], ["normalize"]], ids=["raw", "normalized"])
def test_the_files_set_pooling_and_normalization(
    mode: str, pooling: Pooling, modules: list[str], tmp_path: Path
) -> None:
    settings = EmbeddingSettings.read(sentence_transformers(tmp_path, *modules, **{mode: True}))
    assert (settings.poolings.methods, settings.normalize) == ([pooling], modules == ["normalize"])


@pytest.mark.parametrize("length", [128, None])
def test_the_files_set_the_max_length(length: int | None, tmp_path: Path) -> None:
    write(tmp_path, "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    assert EmbeddingSettings.read(tmp_path).transformer.max_length == length


@pytest.mark.parametrize(
    ("settings", "poolings"),
    [
        ({"pooling_mode_lasttoken": True}, [Pooling.LAST_TOKEN]),
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True, "pooling_mode_cls_token": True},
            [Pooling.CLS, Pooling.MAX, Pooling.MEAN],
        ),
        (
            {"pooling_mode_weightedmean_tokens": True, "pooling_mode_mean_sqrt_len_tokens": True},
            [Pooling.MEAN_SQRT_LEN, Pooling.WEIGHTED_MEAN],
        ),
        ({"pooling_mode_mean_tokens": False}, [Pooling.MEAN]),
        ({"pooling_mode": "max"}, [Pooling.MAX]),
        ({"pooling_mode": ["mean", "cls"], "pooling_mode_max_tokens": True}, [Pooling.MEAN, Pooling.CLS]),
    ],
    ids=str,
)
def test_poolings_are_read_in_their_old_and_new_form(
    settings: dict[str, Any], poolings: list[Pooling], tmp_path: Path
) -> None:
    write(tmp_path, "1_Pooling/config.json", settings)
    assert EmbeddingSettings.read(tmp_path).poolings.methods == poolings


@pytest.mark.parametrize("mode", ["median", [], ["mean", "median"], {"mean": True}, 1], ids=str)
def test_an_unknown_pooling_is_refused(mode: Any, tmp_path: Path) -> None:
    write(tmp_path, "1_Pooling/config.json", {"pooling_mode": mode})
    with pytest.raises(CheckpointError, match=r"pooling_mode is .*choose one with --pooling"):
        EmbeddingSettings.read(tmp_path)


def test_an_explicit_pooling_replaces_the_folders(
    encoder_checkpoint: Path, checkpoint_copy: Callable[[Path], Path], output: Path
) -> None:
    folder = sentence_transformers(checkpoint_copy(encoder_checkpoint), pooling_mode_max_tokens=True)
    write(folder, "1_Pooling/config.json", {"pooling_mode": "median"})
    manifest = export_bundle(folder, output, pooling="cls", variants=["fp32"]).manifest
    assert manifest.embedding == Embedding(pooling=[Pooling.CLS], normalize=False)


CONFIG = "config_sentence_transformers.json"


def test_the_files_set_prompts_similarity_and_dimensions(tmp_path: Path) -> None:
    settings = {"prompts": {"query": "q: ", "document": None}, "default_prompt_name": "query"}
    write(tmp_path, CONFIG, settings | {"similarity_fn_name": "dot", "truncate_dim": 8})
    assert EmbeddingSettings.read(tmp_path).prompts == PromptSettings(
        prompts={"query": "q: ", "document": ""}, default_prompt="query", similarity=Similarity.DOT, truncate_dim=8
    )


TYPES = {"idx": 0, "name": "0", "path": ""}
DAMAGED = [
    ("modules.json", {"not": "a list"}),
    ("modules.json", [{}]),
    ("modules.json", ["Normalize"]),
    ("1_Pooling/config.json", []),
    ("sentence_bert_config.json", {"max_seq_length": "many"}),
    ("sentence_bert_config.json", {"max_seq_length": -1}),
    ("sentence_bert_config.json", {"max_seq_length": True}),
    ("sentence_bert_config.json", {"do_lower_case": 1}),
    ("sentence_bert_config.json", {"transformer_task": "fill-mask"}),
    ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 8}}}),
    ("sentence_bert_config.json", {"modality_config": {"text": {"method_output_name": "pooler_output"}}}),
    ("sentence_bert_config.json", {"modality_config": {"image": {"method_output_name": "last_hidden_state"}}}),
    ("sentence_roberta_config.json", {"max_seq_length": 0}),
    ("1_Pooling/config.json", {"include_prompt": "no"}),
    (CONFIG, {"prompts": ["q: "]}),
    (CONFIG, {"prompts": {"query": 1}}),
    (CONFIG, {"prompts": {"query": "\ud800"}}),
    (CONFIG, {"prompts": {"query": "q: "}, "default_prompt_name": "passage"}),
    (CONFIG, {"default_prompt_name": 1}),
    (CONFIG, {"similarity_fn_name": "maxsim"}),
    (CONFIG, {"truncate_dim": 0}),
    (CONFIG, {"truncate_dim": True}),
    ("modules.json", [{"type": "my_module.Pooling", "path": "1_Pooling"}]),
]
DAMAGED += [
    ("modules.json", [TYPES | {"type": f"sentence_transformers.models.{kind}"} for kind in kinds])
    for kinds in (
        ["Transformer", "Normalize"],
        ["Pooling", "Transformer"],
        ["Transformer", "Pooling", "Pooling"],
        ["Transformer", "CNN", "Pooling"],
        ["StaticEmbedding"],
    )
]


@pytest.mark.parametrize(("name", "value"), DAMAGED)
def test_damaged_files_are_refused(name: str, value: Any, tmp_path: Path) -> None:
    write(tmp_path, name, value)
    with pytest.raises(CheckpointError, match=name):
        EmbeddingSettings.read(tmp_path)


@pytest.mark.parametrize("path", ["../elsewhere", "/elsewhere", "a/../../elsewhere", None, 1])
def test_a_module_is_in_a_folder_of_the_checkpoint(path: Any, tmp_path: Path) -> None:
    write(tmp_path, "modules.json", [MODULES["transformer"], MODULES["pooling"] | {"path": path}])
    with pytest.raises(CheckpointError, match=r"modules.json: path of Pooling is .*, expected a folder inside"):
        EmbeddingSettings.read(tmp_path)


@pytest.mark.parametrize("name", ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json"])
def test_files_that_are_not_json_are_refused(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, {})
    (tmp_path / name).write_text("{")
    with pytest.raises(CheckpointError, match=f"{name} is not JSON"):
        EmbeddingSettings.read(tmp_path)


def test_an_export_with_refused_settings_leaves_nothing_behind(
    encoder_checkpoint: Path, checkpoint_copy: Callable[[Path], Path], refused: Callable[..., None]
) -> None:
    folder = sentence_transformers(checkpoint_copy(encoder_checkpoint), "dense", pooling_mode_mean_tokens=True)
    refused(folder, "2_Dense/config.json describes no linear layer")
