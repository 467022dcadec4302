"""The page of a bundle on the hub."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Embedding, FileEntry, Manifest, Metric, Pooling, Source, Task
from encort.runtime.hub.card import make_card

NASTY = "a`b\n---\n<b>|*x*\u202e\x1b[2J"


@pytest.fixture
def manifest(classifier_bundle: Path) -> Manifest:
    return Bundle.open(classifier_bundle).manifest


def metadata(card: str) -> dict[str, object]:
    values = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(values, dict)
    return values


def with_source(manifest: Manifest, **changes: str | None) -> Manifest:
    return dataclasses.replace(manifest, sources=[dataclasses.replace(manifest.sources[0], **changes)])


def test_the_page_has_the_certificate_of_every_variant(manifest: Manifest) -> None:
    card = make_card(manifest, "org/name")
    assert [variant.name for variant in manifest.variants if f"| {variant.name} | fp32 | 1.00000" not in card] == []
    assert "| 0 |" in card  # label flips


def test_the_metric_and_the_plot_are_shown_if_the_bundle_has_them(manifest: Manifest) -> None:
    variant = manifest.variants[0]
    assert variant.fidelity is not None
    metric = Metric(name="accuracy", before=93.1, after=92.9, examples=500)
    measured = dataclasses.replace(variant, fidelity=dataclasses.replace(variant.fidelity, metric=metric))
    plot = {"search.svg": FileEntry(sha256="0" * 64, bytes=1)}
    searched = dataclasses.replace(manifest, variants=[measured], files={**manifest.files, **plot})
    assert "accuracy 93.10 → 92.90 (500 examples)" in make_card(searched, "org/name")
    assert "(search.svg)" in make_card(searched, "org/name")
    assert "(search.svg)" not in make_card(manifest, "org/name")


def test_licence_and_origin_are_those_of_the_source(manifest: Manifest) -> None:
    source = {"model": "org/base", "revision": "a" * 40, "license": "apache-2.0", "base_model": "org/base"}
    values = metadata(make_card(with_source(manifest, **source), "org/name"))
    assert values == {
        "library_name": "encort",
        "pipeline_tag": "text-classification",
        "license": "apache-2.0",
        "base_model": ["org/base"],
        "tags": ["encort", "onnx"],
    }
    unknown = metadata(make_card(with_source(manifest, license=None, base_model=None), "org/name"))
    assert {"license", "base_model"}.isdisjoint(unknown)


@pytest.mark.parametrize(
    ("task", "pipeline", "call"),
    [
        (Task.TOKEN_CLASSIFICATION, "token-classification", "model.tag("),
        (Task.QUESTION_ANSWERING, "question-answering", "model.answer("),
        (Task.TEXT_REGRESSION, "text-classification", "model.score("),
        (Task.MULTI_LABEL_CLASSIFICATION, "text-classification", "model.classify("),
        (None, "sentence-similarity", "model.embed("),
    ],
)
def test_the_code_calls_what_the_bundle_is_for(manifest: Manifest, task: Task | None, pipeline: str, call: str) -> None:
    heads = [] if task is None else [dataclasses.replace(manifest.heads[0], task=task)]
    card = make_card(dataclasses.replace(manifest, heads=heads), "org/name")
    assert metadata(card)["pipeline_tag"] == pipeline
    code = card.split("```python\n")[1].split("```")[0]
    assert call in code
    assert 'encort.load("hf://org/name")' in code
    compile(code, "card", "exec")


def test_a_folder_of_the_author_is_not_published_on_the_page(manifest: Manifest) -> None:
    assert "/home/" not in make_card(with_source(manifest, model="/home/someone/secret/ckpt", revision=None), "o/n")


def test_names_of_strangers_are_text_and_nothing_else(manifest: Manifest) -> None:
    embedding = Embedding(pooling=[Pooling.MEAN], normalize=True, prompts={NASTY: NASTY})
    head = dataclasses.replace(manifest.heads[0], name=NASTY, labels=[NASTY, "[a](http://x)"])
    source = Source(model=NASTY, architecture=NASTY, revision=NASTY, license=NASTY, base_model=NASTY)
    strange = dataclasses.replace(
        manifest, heads=[head], embedding=embedding, sources=[source], tools={"encort": NASTY}
    )
    card = make_card(strange, "org/name")
    assert metadata(card)["license"] == NASTY
    assert metadata(card)["base_model"] == [NASTY]
    assert card.count("\n---\n") == 1
    assert "<b>" not in card.split("---\n", 2)[2]
    assert "](http" not in card
    assert not {"\x1b", "\u202e"} & set(card)
