"""`encort.json` is read strictly, and an unknown format version has an error of its own."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from encort.runtime.bundle.manifest import FORMAT_VERSION, Embedding, Pooling, Task
from encort.runtime.bundle.manifest_file import read_manifest
from encort.runtime.common.errors import BundleError, BundleVersionError


@pytest.fixture(scope="module")
def text(classifier_bundle: Path) -> str:
    return (classifier_bundle / "encort.json").read_text(encoding="utf-8")


def head(**changes: Any) -> dict[str, Any]:
    """Return a change of a manifest: one head, with these fields."""
    default = {
        "name": "head",
        "task": "text-classification",
        "labels": ["a", "b", "c"],
        "outputs": ["logits"],
    }
    return {"heads": [default | changes]}


def embedding(**changes: Any) -> dict[str, Any]:
    """Return a change of a manifest: the settings of embeddings."""
    return {"embedding": {"pooling": ["mean"], "normalize": True} | changes}


def test_a_written_manifest_is_read_again(text: str) -> None:
    manifest = read_manifest(text)
    assert manifest.to_json() == text
    assert [head.labels for head in manifest.heads] == [["card_lost", "change_pin", "hello"]]


def test_labels_are_written_without_escapes(text: str) -> None:
    manifest = read_manifest(json.dumps(json.loads(text) | head(labels=["안녕", "✓", '"\n'])))
    assert "안녕" in manifest.to_json()
    assert read_manifest(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    "version", [FORMAT_VERSION + 1, FORMAT_VERSION - 2, 0, -1, str(FORMAT_VERSION), True, None, [FORMAT_VERSION]]
)
def test_another_format_version_raises_its_own_error(text: str, version: Any) -> None:
    with pytest.raises(
        BundleVersionError, match=r"format_version .* this encort reads 3 and 4; export the bundle again"
    ):
        read_manifest(json.dumps(json.loads(text) | {"format_version": version}))


def test_the_one_pooling_of_format_version_3_is_read(text: str) -> None:
    plain = json.loads(text) | {"format_version": 3, "embedding": {"pooling": "cls", "normalize": False}}
    manifest = read_manifest(json.dumps(plain))
    assert manifest.embedding == Embedding(pooling=[Pooling.CLS], normalize=False)
    assert json.loads(manifest.to_json())["format_version"] == FORMAT_VERSION


def test_settings_of_embeddings_are_kept(text: str) -> None:
    changes = embedding(
        pooling=["cls", "max"],
        prompts={"query": "q: ", "passage": ""},
        default_prompt="query",
        similarity="dot",
        truncate_dim=16,
    )
    manifest = read_manifest(json.dumps(json.loads(text) | changes))
    assert read_manifest(manifest.to_json()) == manifest
    assert json.loads(manifest.to_json())["embedding"] == changes["embedding"]


def test_settings_of_embeddings_with_their_default_are_not_written(text: str) -> None:
    manifest = read_manifest(json.dumps(json.loads(text) | embedding(prompts={}, truncate_dim=None)))
    assert json.loads(manifest.to_json())["embedding"] == {"pooling": ["mean"], "normalize": True}


def test_graphs_that_leave_prompts_out_of_the_pooling_read_their_lengths(text: str) -> None:
    plain = json.loads(text) | embedding(include_prompt=False)
    for variant in plain["variants"]:
        variant["inputs"]["prompt_length"] = ["batch"]
    assert not read_manifest(json.dumps(plain)).embedding.include_prompt
    with pytest.raises(BundleError, match="cpu-fp32 reads prompt_length"):
        read_manifest(json.dumps(plain | embedding()))


@pytest.mark.parametrize("content", ["[]", '"text"', "null", "{}"])
def test_json_without_a_format_version_raises_the_same_error(content: str) -> None:
    with pytest.raises(BundleVersionError):
        read_manifest(content)


@pytest.mark.parametrize("content", ["", "{", "not json", "[" * 100_000, '{"a":' * 100_000, "9" * 10_000])
def test_a_text_that_is_not_json_raises_a_bundle_error(content: str) -> None:
    with pytest.raises(BundleError, match="not JSON"):
        read_manifest(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": float(FORMAT_VERSION)}, "format_version: expected int"),
        ({"heads": None}, "heads: expected list"),
        (head(task="translation"), r"heads\[0\].task: expected one of 'feature-extraction', 'text-classification'"),
        (head(labels="hello"), r"heads\[0\].labels"),
        (head(labels=["a", 1]), r"heads\[0\].labels\[1\]"),
        ({"format_version": 3.0}, "format_version: expected int"),
        ({"embedding": {"pooling": "mean", "normalize": True}}, "embedding.pooling: expected list"),
        ({"embedding": {"pooling": ["median"], "normalize": True}}, r"embedding.pooling\[0\]"),
        ({"embedding": {"pooling": ["mean"], "normalize": 1}}, "embedding.normalize"),
        (embedding(prompts={"query": 1}), "embedding.prompts.query: expected str"),
        (embedding(similarity="maxsim"), "embedding.similarity: expected one of 'cosine', 'dot'"),
        (embedding(pooling=[]), "embedding.pooling is empty"),
        (embedding(prompts={"query": "q: "}, default_prompt="passage"), "default_prompt 'passage' is none of the"),
        (embedding(truncate_dim=0), "truncate_dim is 0, not between 1 and the 40 values of cpu-fp32"),
        (embedding(truncate_dim=41), "truncate_dim is 41, not between"),
        (embedding(include_prompt=False), "cpu-fp32 does not read prompt_length"),
        ({"max_length": "64"}, "max_length"),
        ({"sources": [{}]}, r"sources\[0\] lacks architecture, model, revision"),
        ({"files": {"config.json": {"sha256": "0"}}}, "files.config.json lacks bytes"),
        ({"variants": [{"name": "x"}]}, r"variants\[0\] lacks"),
        ({"surprise": 1}, "unknown surprise"),
    ],
)
def test_the_error_for_a_wrong_field_names_it(text: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=f"{message}.*export the bundle again"):
        read_manifest(json.dumps(json.loads(text) | change))


def test_every_field_is_required(text: str) -> None:
    plain = json.loads(text)
    for name in plain.keys() - {"format_version"}:
        with pytest.raises(BundleError, match=f"it lacks {name}"):
            read_manifest(json.dumps({key: value for key, value in plain.items() if key != name}))


@pytest.mark.parametrize("task", [task for task in Task if task.is_classification])
def test_the_task_is_the_task_of_the_first_head(text: str, task: Task) -> None:
    first, second = *head(task=task)["heads"], *head(name="second")["heads"]
    assert read_manifest(json.dumps(json.loads(text) | {"heads": [first, second]})).task is task


@pytest.mark.parametrize(
    ("changes", "axes"),
    [
        ({"task": "question-answering", "outputs": ["logits"], "labels": []}, ["batch", "sequence"]),
        ({"task": "question-answering"}, ["batch", "sequence", "3"]),
        ({"outputs": ["logits", "logits"]}, ["batch", "3"]),
        ({"task": "fill-mask", "labels": []}, ["batch", "90"]),
        ({"task": "fill-mask", "mask": 4}, ["batch", "90"]),
        ({"mask": 4}, ["batch", "3"]),
        ({"outputs": []}, ["batch", "3"]),
        ({"labels": []}, ["batch", "sequence"]),
        ({"task": "token-classification"}, ["batch", "3"]),
        ({}, ["batch", "sequence", "3"]),
        ({"task": "feature-extraction"}, ["batch", "3"]),
        ({"task": "text-regression"}, ["batch", "3"]),
        ({}, ["batch", "4"]),
    ],
)
def test_a_head_whose_outputs_do_not_fit_its_task_is_refused(
    text: str, changes: dict[str, Any], axes: list[str]
) -> None:
    plain = json.loads(text) | head(**changes)
    for variant in plain["variants"]:
        variant["outputs"]["logits"] = axes
    with pytest.raises(BundleError, match=r"head|logits"):
        read_manifest(json.dumps(plain))


def test_graphs_of_masked_words_read_a_position_and_give_one_row_per_text(masked_bundle: Path) -> None:
    plain = json.loads((masked_bundle / "encort.json").read_text(encoding="utf-8"))
    assert read_manifest(json.dumps(plain)).task is Task.FILL_MASK
    variant = plain["variants"][0]
    size = variant["outputs"]["logits"][-1]
    variant["outputs"]["logits"] = ["batch", "sequence", size]
    with pytest.raises(BundleError, match="logits"):
        read_manifest(json.dumps(plain))
    variant["outputs"]["logits"] = ["batch", size]
    del variant["inputs"]["mask_position"]
    with pytest.raises(BundleError, match="does not read mask_position"):
        read_manifest(json.dumps(plain))


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("inputs", {"position_ids": ["batch", "sequence"]}),
        ("outputs", {"sentence_embedding": ["batch", "hidden"]}),
        ("outputs", {"pooler_output": ["batch"]}),
    ],
)
def test_unknown_inputs_and_vectors_without_a_size_are_refused(text: str, part: str, change: dict[str, Any]) -> None:
    plain = json.loads(text)
    plain["variants"][0][part] |= change
    with pytest.raises(BundleError, match="export the bundle again"):
        read_manifest(json.dumps(plain))


@pytest.mark.parametrize(
    ("layout", "inputs", "message"),
    [
        ("ragged", {"input_ids": ["batch", "sequence"]}, "does not read attention_mask"),
        ("padded", {"input_ids": ["batch", "sequence"]}, "does not read attention_mask"),
        ("packed", {"input_ids": ["tokens"]}, "does not read cu_seqlens, position_ids, token_offset"),
        ("equal_length", {"token_type_ids": ["batch", "sequence"]}, "does not read input_ids"),
        (
            "equal_length",
            {"input_ids": ["batch", "sequence"], "attention_mask": ["batch", "sequence"]},
            "reads attention",
        ),
        ("equal_length", {"input_ids": ["tokens"]}, r"input_ids of cpu-fp32 has axes \['tokens'\]"),
        ("equal_length", {"input_ids": ["1", "sequence"]}, "has axes"),
        (
            "equal_length",
            {"input_ids": ["batch", "sequence"], "reversed_token_type_ids": ["batch", "sequence"]},
            "does not read reversed_input_ids",
        ),
    ],
)
def test_inputs_that_do_not_fit_the_layout_are_refused(
    text: str, layout: str, inputs: dict[str, list[str]], message: str
) -> None:
    plain = json.loads(text)
    plain["heads"] = []
    plain["variants"][0] |= {"layout": layout, "inputs": inputs}
    with pytest.raises(BundleError, match=message):
        read_manifest(json.dumps(plain))


@pytest.mark.parametrize("key", ["max_length", "sha256", "labels"])
def test_a_key_that_is_there_twice_is_refused(text: str, key: str) -> None:
    assert f'"{key}":' in text
    with pytest.raises(BundleError, match=f"the key '{key}' is there twice"):
        read_manifest(text.replace(f'"{key}":', f'"{key}": 1, "{key}":', 1))


def test_two_variants_with_the_same_name_are_refused(text: str) -> None:
    plain = json.loads(text)
    plain["variants"][1]["name"] = plain["variants"][0]["name"]
    with pytest.raises(BundleError, match="two variants have one name"):
        read_manifest(json.dumps(plain))


def test_tags_of_no_known_scheme_are_refused(text: str) -> None:
    tagger = head(task="token-classification", labels=["O", "B-a", "b"], outputs=["logits"])
    with pytest.raises(BundleError, match="B-a and b are not of one scheme"):
        read_manifest(json.dumps(json.loads(text) | tagger | {"variants": []}))


def test_a_number_that_is_too_large_for_a_float_is_refused(text: str) -> None:
    plain = json.loads(text)
    plain["variants"][0]["fidelity"]["mean_cosine"] = 10**400
    with pytest.raises(BundleError, match="mean_cosine"):
        read_manifest(json.dumps(plain))


def test_without_heads_the_task_is_feature_extraction(text: str) -> None:
    assert read_manifest(json.dumps(json.loads(text) | {"heads": []})).task is Task.FEATURE_EXTRACTION


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, math.nan])
def test_a_threshold_is_between_0_and_1(text: str, threshold: float) -> None:
    with pytest.raises(BundleError, match=r"threshold of head is .*, not between 0 and 1"):
        read_manifest(json.dumps(json.loads(text) | head(threshold=threshold)))


def test_a_threshold_is_kept(text: str) -> None:
    manifest = read_manifest(json.dumps(json.loads(text) | head(threshold=0.25)))
    assert read_manifest(manifest.to_json()).heads[0].threshold == 0.25


def test_a_null_threshold_is_kept(text: str) -> None:
    reader = head(task="question-answering", labels=[], outputs=["start", "end"], null_threshold=-1.5)
    plain = json.loads(text) | reader | {"variants": []}
    manifest = read_manifest(json.dumps(plain))
    assert manifest.heads[0].null_threshold == -1.5
    assert read_manifest(manifest.to_json()) == manifest


@pytest.mark.parametrize("threshold", [math.nan, math.inf])
def test_a_null_threshold_is_a_finite_number(text: str, threshold: float) -> None:
    with pytest.raises(BundleError, match="null_threshold of head is"):
        read_manifest(json.dumps(json.loads(text) | head(null_threshold=threshold)))


def test_fields_with_their_default_are_not_written(text: str) -> None:
    manifest = read_manifest(json.dumps(json.loads(text) | head(aggregation="simple")))
    assert {"aggregation", "null_threshold"} & json.loads(manifest.to_json())["heads"][0].keys() == {"aggregation"}


@pytest.mark.parametrize(("tags_words", "expected"), [(True, "word"), (False, "simple")])
def test_the_tags_of_words_of_older_bundles_are_an_aggregation(text: str, tags_words: bool, expected: str) -> None:
    manifest = read_manifest(json.dumps(json.loads(text) | head(tags_words=tags_words)))
    assert manifest.heads[0].aggregation == expected


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_an_activation_that_a_task_cannot_have_is_refused(text: str, activation: str) -> None:
    with pytest.raises(BundleError, match=f"head head cannot have the activation {activation}"):
        read_manifest(json.dumps(json.loads(text) | head(activation=activation)))
