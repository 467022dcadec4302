"""`encort predict --labels` writes the results of `Model.classify_zero_shot`."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import encort
from encort.export.exporter import export_bundle
from encort.runtime.cli.main import group
from encort.runtime.common.errors import InputError, WrongTaskError
from tests.conftest import MakeCheckpoint

TEXTS = ["my card is lost", "", "the card " * 100]
LABELS = ["card", "my pin", "hello"]


@pytest.fixture(scope="module")
def bundle(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = make_checkpoint(labels=["contradiction", "neutral", "entailment"], seed=7)
    return export_bundle(checkpoint, tmp_path_factory.mktemp("nli") / "bundle", variants=["fp32"]).folder


def predict(bundle: Path, *arguments: str) -> list[dict[str, Any]]:
    command = ["predict", "--threads", "1", os.fspath(bundle), *arguments]
    result = CliRunner().invoke(group, command, catch_exceptions=False)
    assert result.exit_code == 0
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("multi_label", [False, True])
def test_records_are_the_results_of_the_model(bundle: Path, multi_label: bool) -> None:
    options = ["--multi-label", "--threshold", "0.4"] if multi_label else []
    records = predict(
        bundle, *TEXTS, "--labels", "card, my pin,hello", "--template", "my {} is lost", "--all-scores", *options
    )
    with encort.load(bundle, threads=1) as model:
        results = model.classify_zero_shot(TEXTS, LABELS, template="my {} is lost", multi_label=multi_label)
    for record, result in zip(records, results, strict=True):
        assert record.pop("scores") == pytest.approx(result.scores, abs=1e-6)
        counts = {"tokens": result.tokens, "truncated": result.truncated}
        if multi_label:
            assert record == {"labels": result.above(0.4), **counts}
        else:
            assert record == {"label": result.label, "score": pytest.approx(result.score, abs=1e-6), **counts}


def test_inputs_that_cannot_be_used_are_left_out(bundle: Path, tmp_path: Path) -> None:
    rows = [{"text": "hello"}, {"text": "a", "text_pair": "b"}, {"text": 3}, {"text": "card"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    arguments = ["--labels", "card,hello", "--input", os.fspath(tmp_path / "rows.jsonl"), "--on-error", "column"]
    errors = [record["error"] for record in predict(bundle, *arguments)]
    assert [error is None for error in errors] == [True, False, False, True]
    assert "not pairs" in errors[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "a,a"], "labels must be different"),
        (["--labels", "a", "--template", "x"], "template must have {} once"),
        (["--labels", "a", "--n-best", "2"], "--n-best does not go with --labels"),
        (["--labels", "a", "--threshold", "0.3"], "--threshold without --multi-label does not go with --labels"),
        (["--labels", "a", "--overflow", "window"], "--overflow window does not go with --labels"),
        (["--labels", "a", "--stride", "9"], "--stride does not go with --labels"),
        (["--template", "{}"], "--template needs --labels"),
        (["--multi-label"], "--multi-label needs --labels"),
    ],
)
def test_options_that_do_not_fit_are_refused(bundle: Path, options: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        predict(bundle, "hello", *options)


def test_a_head_without_entailment_is_refused(classifier_bundle: Path) -> None:
    with pytest.raises(WrongTaskError, match="'entail'"):
        predict(classifier_bundle, "hello", "--labels", "a")
