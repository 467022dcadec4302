"""Several heads on one encoder: each equals its own checkpoint, and checkpoints that do not match are refused."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import encort
from encort.export.exporter import export_bundle
from encort.runtime.bundle.manifest import Task
from encort.runtime.common.errors import CheckpointError, InputError, InputTypeError, WrongTaskError

TEXTS = ["a", "", "my card is lost", "안녕하세요 😀 hello", "the card " * 100]
TOPICS, TAGS, MOODS = ["card", "pin", "hello"], ["O", "B-x", "B-y", "B-z"], ["joy", "anger", "fear", "calm"]
HEADS = {
    "topics": ("AutoModelForSequenceClassification", {"id2label": dict(enumerate(TOPICS))}),
    "tags": ("AutoModelForTokenClassification", {"id2label": dict(enumerate(TAGS))}),
    "answers": ("AutoModelForQuestionAnswering", {}),
    "moods": (
        "AutoModelForSequenceClassification",
        {"id2label": dict(enumerate(MOODS)), "problem_type": "multi_label_classification"},
    ),
}


def probabilities(results: Sequence[Any]) -> np.ndarray:
    return np.array([list(result.scores.values()) for result in results])


@pytest.fixture(scope="module")
def family(
    checkpoint: Callable[..., Path], save_tokenizer: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folders of four heads on one encoder; their poolers differ, because they are trained with the heads."""
    base, parent = checkpoint("bert", "encoder"), tmp_path_factory.mktemp("family")
    for seed, (name, (loader, settings)) in enumerate(HEADS.items()):
        torch.manual_seed(seed)
        model = getattr(transformers, loader).from_pretrained(base, **settings)
        for weight, parameter in model.named_parameters():
            if any(part in weight for part in ("pooler", "classifier", "qa_outputs")):
                torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(parent / name)
        save_tokenizer(parent / name)
    return parent


@pytest.fixture(scope="module")
def model(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[encort.Model]:
    folders = [family / name for name in HEADS]
    bundle = export_bundle(folders, tmp_path_factory.mktemp("bundles") / "b", variants=["fp32"])
    with encort.load(bundle.folder) as model:
        yield model


@pytest.fixture
def other(family: Path, tmp_path: Path) -> Path:
    """A copy of the second head's folder, which a test may change."""
    return shutil.copytree(family / "tags", tmp_path / "tags")


@pytest.fixture
def refused(family: Path, tmp_path: Path) -> Callable[..., None]:
    """`refused(folder, message)` checks that an export beside the first head fails and leaves nothing behind."""

    def check(folder: Path, message: str, first: str = "topics") -> None:
        with pytest.raises(CheckpointError, match=message):
            export_bundle([family / first, folder], tmp_path / "b")
        assert not (tmp_path / "b").exists()

    return check


def test_heads_are_named_after_their_folders_and_keep_their_order(model: encort.Model) -> None:
    assert [(head.name, head.task, head.labels) for head in model.manifest.heads] == [
        ("topics", Task.TEXT_CLASSIFICATION, TOPICS),
        ("tags", Task.TOKEN_CLASSIFICATION, TAGS),
        ("answers", Task.QUESTION_ANSWERING, []),
        ("moods", Task.MULTI_LABEL_CLASSIFICATION, MOODS),
    ]


@pytest.mark.parametrize(
    ("head", "scale"), [("topics", lambda logits: logits.softmax(-1)), ("moods", lambda logits: logits.sigmoid())]
)
def test_a_classifier_agrees_with_its_own_checkpoint(
    model: encort.Model,
    family: Path,
    eager: Callable[..., SimpleNamespace],
    head: str,
    scale: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    expected = scale(eager(family / head, TEXTS).result.logits)
    np.testing.assert_allclose(probabilities(model.classify(TEXTS, head=head)), expected, atol=1e-5, rtol=0)


def test_the_tagger_agrees_with_its_own_checkpoint(
    model: encort.Model, family: Path, eager: Callable[..., SimpleNamespace]
) -> None:
    text = "my card is lost hello change the pin"  # each word is one token
    rows = eager(family / "tags", [text]).result.logits[0, 1:-1].softmax(-1)
    expected = [
        (TAGS[row.argmax()][2:], word, float(row.max()))
        for row, word in zip(rows, text.split(), strict=True)
        if row.argmax() > 0
    ]
    (spans,) = model.tag([text])
    assert [(span.label, span.text) for span in spans] == [(label, word) for label, word, _ in expected]
    assert [span.score for span in spans] == pytest.approx([score for *_, score in expected], abs=1e-5)
    assert expected


def test_question_answering_agrees_with_its_own_checkpoint(
    model: encort.Model, family: Path, eager: Callable[..., SimpleNamespace]
) -> None:
    pair = ("is it lost?", "my card is lost")
    expected = eager(family / "answers", [pair])
    context = [position for position, part in enumerate(expected.tokens.sequence_ids(0)) if part == 1]
    null_start, *starts = expected.result.start_logits[0, [0, *context]].softmax(0).tolist()
    null_end, *ends = expected.result.end_logits[0, [0, *context]].softmax(0).tolist()
    (answers,) = model.answer([pair], n_best=100, null_threshold=math.inf)
    wanted = sorted((start * end for first, start in enumerate(starts) for end in ends[first:]), reverse=True)
    assert [answer.score for answer in answers] == pytest.approx(wanted, abs=1e-5)
    assert answers.null_score == pytest.approx(null_start * null_end, abs=1e-5)


def test_embeddings_come_from_the_shared_encoder(
    model: encort.Model, family: Path, eager: Callable[..., SimpleNamespace]
) -> None:
    expected = eager(family / "moods", TEXTS)
    for rows, hidden in zip(model.embed_tokens(TEXTS), expected.hidden, strict=True):
        np.testing.assert_allclose(rows, hidden[: len(rows)], atol=1e-4, rtol=0)


def test_without_a_name_the_first_head_of_the_task_answers(model: encort.Model) -> None:
    assert model.predict(TEXTS) == model.classify(TEXTS) == model.classify(TEXTS, head="topics")
    assert model.tag(TEXTS) == model.tag(TEXTS, head="tags")


@pytest.mark.parametrize(("method", "head"), [("classify", "tags"), ("tag", "topics"), ("score", None)])
def test_a_head_of_another_task_is_refused(model: encort.Model, method: str, head: str | None) -> None:
    with pytest.raises(WrongTaskError, match=r"topics .*tags .*answers .*moods"):
        getattr(model, method)(TEXTS, head=head)


def test_the_smallest_limit_is_the_max_length(
    family: Path, other: Path, save_tokenizer: Callable[..., None], tmp_path: Path
) -> None:
    save_tokenizer(other, limit=33)
    bundle = export_bundle([family / "topics", other], tmp_path / "b", variants=["fp32"])
    assert bundle.manifest.max_length == 33


def test_another_encoder_is_refused(other: Path, refused: Callable[..., None]) -> None:
    weights = load_file(other / "model.safetensors")
    weights["bert.encoder.layer.1.output.dense.bias"][7] += 1e-4
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    refused(other, r"another encoder .*layer\.1\.output\.dense\.bias")


@pytest.mark.parametrize("setting", [{"hidden_act": "relu"}, {"num_attention_heads": 4}])
def test_an_encoder_with_other_settings_is_refused(
    other: Path, refused: Callable[..., None], setting: dict[str, Any]
) -> None:
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | setting))
    refused(other, "another encoder")


@pytest.mark.parametrize("setting", [{"local_attention": 4}, {"rotary base": 20_000.0}], ids=str)
def test_settings_that_no_weight_shows_are_compared(
    checkpoint: Callable[..., Path], tmp_path: Path, setting: dict[str, Any]
) -> None:
    first = checkpoint("modernbert", "text-classification")
    second = shutil.copytree(first, tmp_path / "second")
    config = json.loads((second / "config.json").read_text())
    if "rotary base" in setting:
        rope = {"rope_type": "default", "rope_theta": setting["rotary base"]}
        setting = (
            {"rope_parameters": {"full_attention": rope}}
            if "rope_parameters" in config
            else {"global_rope_theta": rope["rope_theta"]}
        )
    (second / "config.json").write_text(json.dumps(config | setting))
    with pytest.raises(CheckpointError, match="another encoder"):
        export_bundle([first, second], tmp_path / "b", variants=["fp32"])


def test_a_checkpoint_without_a_head_is_refused(checkpoint: Callable[..., Path], refused: Callable[..., None]) -> None:
    refused(checkpoint("bert", "encoder"), "no head")


def test_two_folders_with_the_same_name_are_refused(other: Path, refused: Callable[..., None]) -> None:
    refused(other, "two checkpoints are called 'tags'", first="tags")


def test_another_tokenizer_is_refused(
    other: Path, refused: Callable[..., None], save_tokenizer: Callable[..., None]
) -> None:
    save_tokenizer(other, do_lower_case=False)
    refused(other, "another tokenizer")


def test_a_tokenizer_saved_with_padding_counts_as_the_same(family: Path, other: Path, tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(other)
    tokenizer(["a"], padding="max_length", truncation=True, max_length=32)
    tokenizer.save_pretrained(other)
    assert export_bundle([family / "topics", other], tmp_path / "b", variants=["fp32"]).manifest.heads


def test_labelled_data_cannot_choose_a_graph_for_several_heads(family: Path, tmp_path: Path) -> None:
    folders = [family / "topics", family / "tags"]
    with pytest.raises(InputError, match="cannot choose a graph for all"):
        export_bundle(folders, tmp_path / "b", evaluation=tmp_path / "any.jsonl")


def test_a_revision_for_several_checkpoints_is_refused(family: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one revision"):
        export_bundle([family / "topics", family / "tags"], tmp_path / "b", revision="main")


@pytest.mark.parametrize("method", ["tag", "answer"])
def test_a_batch_without_offsets_is_refused_for_spans_and_answers(model: encort.Model, method: str) -> None:
    batch = dataclasses.replace(model.tokenize(["my card"]), offsets=None)
    with pytest.raises(InputTypeError, match="tokenize texts with this model"):
        getattr(model, method)(batch)


def test_a_batch_without_its_texts_is_refused(model: encort.Model) -> None:
    with pytest.raises(InputTypeError, match="tokenize texts with this model"):
        model.tag(dataclasses.replace(model.tokenize(["my card"]), texts=()))
