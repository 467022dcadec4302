"""Several heads on one encoder: each is its own checkpoint's, and what does not belong together is refused."""

import dataclasses
import json
import shutil

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


def probabilities(results):
    return np.array([list(result.scores.values()) for result in results])


@pytest.fixture(scope="module")
def family(checkpoint, save_tokenizer, tmp_path_factory):
    """Folders of four heads on one encoder; their poolers differ, for they are trained with the heads."""
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
def model(family, tmp_path_factory):
    folders = [family / name for name in HEADS]
    bundle = export_bundle(folders, tmp_path_factory.mktemp("bundles") / "b", variants=["fp32"])
    with encort.load(bundle.folder) as model:
        yield model


@pytest.fixture
def other(family, tmp_path):
    """A copy of the second head's folder, to be changed."""
    return shutil.copytree(family / "tags", tmp_path / "tags")


@pytest.fixture
def refused(family, tmp_path):
    """`refused(folder, message)`: it cannot be exported beside the first head, and nothing is left behind."""

    def check(folder, message, first="topics"):
        with pytest.raises(CheckpointError, match=message):
            export_bundle([family / first, folder], tmp_path / "b")
        assert not (tmp_path / "b").exists()

    return check


def test_heads_are_called_as_their_folders_and_keep_their_order(model):
    assert [(head.name, head.task, head.labels) for head in model.manifest.heads] == [
        ("topics", Task.TEXT_CLASSIFICATION, TOPICS),
        ("tags", Task.TOKEN_CLASSIFICATION, TAGS),
        ("answers", Task.QUESTION_ANSWERING, []),
        ("moods", Task.MULTI_LABEL_CLASSIFICATION, MOODS),
    ]


@pytest.mark.parametrize(
    ("head", "scale"), [("topics", lambda logits: logits.softmax(-1)), ("moods", lambda logits: logits.sigmoid())]
)
def test_a_classifier_agrees_with_its_own_checkpoint(model, family, eager, head, scale):
    expected = scale(eager(family / head, TEXTS).result.logits)
    np.testing.assert_allclose(probabilities(model.classify(TEXTS, head=head)), expected, atol=1e-5, rtol=0)


def test_the_tagger_agrees_with_its_own_checkpoint(model, family, eager):
    text = "my card is lost hello change the pin"  # each word is one token
    rows = eager(family / "tags", [text]).result.logits[0, 1:-1].softmax(-1)
    expected = [
        (TAGS[row.argmax()][2:], word, float(row.max()))
        for row, word in zip(rows, text.split(), strict=True)
        if row.argmax() > 0
    ]
    (found,) = model.tag([text])
    assert [(span.label, span.text) for span in found] == [(label, word) for label, word, _ in expected]
    assert [span.score for span in found] == pytest.approx([score for *_, score in expected], abs=1e-5)
    assert expected


def test_the_answerer_agrees_with_its_own_checkpoint(model, family, eager):
    pair = ("is it lost?", "my card is lost")
    expected = eager(family / "answers", [pair])
    context = [position for position, part in enumerate(expected.tokens.sequence_ids(0)) if part == 1]
    starts = expected.result.start_logits[0, context].softmax(0).tolist()
    ends = expected.result.end_logits[0, context].softmax(0).tolist()
    (found,) = model.answer([pair], n_best=100)
    wanted = sorted((start * end for first, start in enumerate(starts) for end in ends[first:]), reverse=True)
    assert [answer.score for answer in found] == pytest.approx(wanted, abs=1e-5)


def test_embeddings_are_the_one_encoders(model, family, eager):
    expected = eager(family / "moods", TEXTS)
    for rows, hidden in zip(model.embed_tokens(TEXTS), expected.hidden, strict=True):
        np.testing.assert_allclose(rows, hidden[: len(rows)], atol=1e-4, rtol=0)


def test_without_a_name_the_first_head_that_can_is_asked(model):
    assert model.predict(TEXTS) == model.classify(TEXTS) == model.classify(TEXTS, head="topics")
    assert model.tag(TEXTS) == model.tag(TEXTS, head="tags")


@pytest.mark.parametrize(("ask", "head"), [("classify", "tags"), ("tag", "topics"), ("score", None)])
def test_a_head_of_another_task_is_refused(model, ask, head):
    with pytest.raises(WrongTaskError, match=r"topics .*tags .*answers .*moods"):
        getattr(model, ask)(TEXTS, head=head)


def test_the_smallest_limit_counts(family, other, save_tokenizer, tmp_path):
    save_tokenizer(other, limit=33)
    bundle = export_bundle([family / "topics", other], tmp_path / "b", variants=["fp32"])
    assert bundle.manifest.max_length == 33


def test_another_encoder_is_refused(other, refused):
    weights = load_file(other / "model.safetensors")
    weights["bert.encoder.layer.1.output.dense.bias"][7] += 1e-4
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    refused(other, r"another encoder .*layer\.1\.output\.dense\.bias")


@pytest.mark.parametrize("setting", [{"hidden_act": "relu"}, {"num_attention_heads": 4}])
def test_an_encoder_of_other_settings_is_refused(other, refused, setting):
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | setting))
    refused(other, "another encoder")


def test_a_checkpoint_without_a_head_is_refused(checkpoint, refused):
    refused(checkpoint("bert", "encoder"), "no head")


def test_two_folders_of_one_name_are_refused(other, refused):
    refused(other, "two checkpoints are called 'tags'", first="tags")


def test_another_tokenizer_is_refused(other, refused, save_tokenizer):
    save_tokenizer(other, do_lower_case=False)
    refused(other, "another tokenizer")


def test_a_tokenizer_that_was_last_used_with_padding_is_the_same(family, other, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(other)
    tokenizer(["a"], padding="max_length", truncation=True, max_length=32)
    tokenizer.save_pretrained(other)
    assert export_bundle([family / "topics", other], tmp_path / "b", variants=["fp32"]).manifest.heads


def test_labelled_data_of_one_head_does_not_choose_for_all(family, tmp_path):
    folders = [family / "topics", family / "tags"]
    with pytest.raises(InputError, match="cannot choose a graph for all"):
        export_bundle(folders, tmp_path / "b", evaluation=tmp_path / "any.jsonl")


def test_one_revision_does_not_name_several_checkpoints(family, tmp_path):
    with pytest.raises(InputError, match="one revision"):
        export_bundle([family / "topics", family / "tags"], tmp_path / "b", revision="main")


@pytest.mark.parametrize("method", ["tag", "answer"])
def test_a_batch_without_places_is_refused_where_they_matter(model, method):
    batch = dataclasses.replace(model.tokenize(["my card"]), offsets=None)
    with pytest.raises(InputTypeError, match="tokenize texts with this model"):
        getattr(model, method)(batch)


def test_a_batch_without_its_texts_is_not_no_texts(model):
    with pytest.raises(InputTypeError, match="tokenize texts with this model"):
        model.tag(dataclasses.replace(model.tokenize(["my card"]), texts=()))
