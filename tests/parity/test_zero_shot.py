"""Zero-shot classification gives the scores of the pipeline of transformers."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

import encort
from encort.export.exporter import export_bundle
from encort.runtime.common.errors import InputError, InputTypeError, WrongTaskError
from encort.runtime.engine.tokenizer_pool import CHUNK
from tests.conftest import MakeCheckpoint

TEXTS = ["my card is lost", "", "안녕하세요 😀 hello", "the card " * 100]
LABELS = ["card", "my pin", "hello"]
MNLI = ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]

Export = Callable[[list[str]], tuple[Path, Path]]


@pytest.fixture(scope="module")
def export(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """`export(labels)` makes a checkpoint with these labels, and its bundle."""
    made: dict[str, tuple[Path, Path]] = {}

    def make(labels: list[str]) -> tuple[Path, Path]:
        key = " ".join(labels)
        if key not in made:
            checkpoint = make_checkpoint(labels=labels, seed=7)
            folder = tmp_path_factory.mktemp("nli") / "bundle"
            made[key] = checkpoint, export_bundle(checkpoint, folder, variants=["fp32"]).folder
        return made[key]

    return make


def pipeline_scores(checkpoint: Path, texts: list[str], **options: Any) -> list[dict[str, float]]:
    pipeline: Any = transformers.pipeline("zero-shot-classification", model=str(checkpoint), device="cpu")
    results = [pipeline(text, LABELS, **options) for text in texts]
    return [dict(zip(result["labels"], result["scores"], strict=True)) for result in results]


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        MNLI,
        ["entailment", "neutral", "contradiction"],
        ["entailment", "not_entailment"],
        ["LABEL_0", "LABEL_1", "LABEL_2"],
    ],
    ids=" ".join,
)
def test_scores_are_those_of_the_pipeline(export: Export, names: list[str], multi_label: bool) -> None:
    checkpoint, bundle = export(names)
    texts = [text for text in TEXTS if text]  # the pipeline refuses empty texts
    options: Any = {"multi_label": multi_label}
    with encort.load(bundle, threads=1) as model:
        for template in ({}, {"template": "my {} is lost"}):
            results = model.classify_zero_shot(texts, LABELS, **template, **options)
            hypothesis = {"hypothesis_template": template["template"]} if template else {}
            expected = pipeline_scores(checkpoint, texts, **hypothesis, **options)
            for result, scores in zip(results, expected, strict=True):
                assert list(result.scores) == LABELS
                assert [result.label, result.score] == [
                    max(scores, key=scores.__getitem__),
                    max(result.scores.values()),
                ]
                np.testing.assert_allclose(
                    [result.scores[label] for label in LABELS], [scores[label] for label in LABELS], atol=1e-5, rtol=0
                )


def test_a_single_label_is_judged_by_itself(export: Export) -> None:
    with encort.load(export(MNLI)[1], threads=1) as model:
        alone = model.classify_zero_shot(TEXTS, ["card"])
        among = model.classify_zero_shot(TEXTS, LABELS, multi_label=True)
    assert [result.score for result in alone] == pytest.approx([result.scores["card"] for result in among], abs=1e-6)


def test_contradiction_is_found_by_its_name(export: Export) -> None:
    with encort.load(export(["neutral", "entailment", "Contradiction"])[1], threads=1) as model:
        entails, contradicts = model.logits([("my card is lost", "This example is card.")])[0, 1:]
        result = model.classify_zero_shot(["my card is lost"], ["card"])[0]
    assert result.score == pytest.approx(1 / (1 + np.exp(contradicts - entails)), abs=1e-6)


def test_results_say_what_was_read_and_do_not_depend_on_other_texts(export: Export) -> None:
    with encort.load(export(MNLI)[1], threads=1) as model:
        results = model.classify_zero_shot(TEXTS, LABELS)
        lengths = model.tokenize([(TEXTS[0], f"This example is {label}.") for label in LABELS]).lengths
        many = model.classify_zero_shot(TEXTS * (CHUNK // 8), LABELS)
        assert model.classify_zero_shot([], LABELS) == []
    assert results[0].tokens == lengths.max()
    assert [result.truncated for result in results] == [False, False, False, True]
    assert len(many) == len(TEXTS) * (CHUNK // 8) > CHUNK // len(LABELS)
    for result, expected in zip(many, results * (CHUNK // 8), strict=True):
        assert result.scores == pytest.approx(expected.scores, abs=1e-6)


def test_services_give_the_results_of_the_model(export: Export) -> None:
    options: Any = {"template": "my {} is lost", "multi_label": True}
    with encort.load(export(MNLI)[1], threads=1) as model:
        expected = model.classify_zero_shot(TEXTS, LABELS, **options)
        with model.serving() as service:
            from_threads = [service.classify_zero_shot(text, LABELS, **options) for text in TEXTS]

        async def ask() -> list[encort.Classification]:
            async with model.serving() as service:
                return list(
                    await asyncio.gather(*(service.classify_zero_shot(text, LABELS, **options) for text in TEXTS))
                )

        from_tasks = asyncio.run(ask())
    for results in (from_threads, from_tasks):
        for result, wanted in zip(results, expected, strict=True):
            assert result.scores == pytest.approx(wanted.scores, abs=1e-6)
            assert (result.tokens, result.truncated) == (wanted.tokens, wanted.truncated)


@pytest.mark.parametrize(
    ("texts", "labels", "template", "error", "message"),
    [
        (["a"], [], "{}", InputError, "labels must be different, and at least one"),
        (["a"], ["card", "card"], "{}", InputError, "labels must be different"),
        (["a"], "card", "{}", InputTypeError, "labels must be a list of str"),
        (["a"], ["card", 1], "{}", InputTypeError, "labels must be a list of str"),
        (["a"], ["card"], "about", InputError, "template must have {} once"),
        (["a"], ["card"], "{label}", InputError, "template must have {} once"),
        (["a"], ["card"], "{", InputError, "template must have {} once"),
        (["a"], ["card"], None, InputTypeError, "template must be a str"),
        ([("a", "b")], ["card"], "{}", InputTypeError, "give single texts, not pairs"),
        ("a", ["card"], "{}", InputTypeError, "put it in a list"),
        ([1], ["card"], "{}", InputTypeError, "text 0: expected a str"),
    ],
)
def test_inputs_that_make_no_hypotheses_are_refused(
    export: Export, texts: Any, labels: Any, template: Any, error: type[Exception], message: str
) -> None:
    with encort.load(export(MNLI)[1], threads=1) as model, pytest.raises(error, match=message):
        model.classify_zero_shot(texts, labels, template=template)


def test_a_head_without_entailment_is_refused(export: Export) -> None:
    bundle = export(["good", "bad"])[1]
    with encort.load(bundle, threads=1) as model, pytest.raises(WrongTaskError, match="are: good, bad"):
        model.classify_zero_shot(["a"], LABELS)
