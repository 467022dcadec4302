"""Training decides once whether lists of tokens are words or characters; the checkpoint and the bundle keep it."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import encort
from encort.export.exporter import export_bundle
from encort.runtime.cli.main import group
from encort.runtime.common.errors import CheckpointError
from encort.runtime.serving.service import Service
from encort.runtime.task_runner import TaskRunner
from encort.training.tasks.token_classification import TokenClassification

Run = Any  # of tests/training/conftest.py, which cannot be imported
Train = Callable[..., Run]

TAGS = {"card": "B-a", "c": "B-a", "a": "I-a"}
WORDS = [["my", "card", "is", "lost"], ["the", "card"]] * 10 + [["ผม", " ", "รัก"]]
LETTERS = [[*"my card"], [*"card"]] * 10
SPANS = [{"text": "my card", "label": [[3, 7, "a"]]}, {"text": "hello", "label": []}] * 10


@pytest.fixture
def train(train_tiny: Callable[..., Run], tmp_path: Path) -> Train:
    """`train(lists of tokens)`: a run on these lists, or on rows as they are."""

    def run(rows: list[Any], **options: Any) -> Run:
        tagged = [
            row if isinstance(row, dict) else {"tokens": row, "tags": [TAGS.get(token, "O") for token in row]}
            for row in rows
        ]
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in tagged), encoding="utf-8")
        return train_tiny(task=TokenClassification(), train=file, epochs=1, **options)

    return run


@pytest.mark.parametrize(("rows", "kept"), [(WORDS, "words"), (LETTERS, "characters"), (SPANS, None)])
def test_the_checkpoint_and_the_bundle_keep_what_the_tokens_are(
    train: Train, rows: list[Any], kept: str | None, tmp_path: Path
) -> None:
    folder = train(rows).folder
    assert json.loads((folder / "config.json").read_text()).get("labelled_tokens") == kept
    (head,) = export_bundle(folder, tmp_path / "a.bundle", variants=["fp32"]).manifest.heads
    assert head.tokens == kept


@pytest.mark.parametrize(
    ("rows", "words", "text"),
    [(WORDS, ["ผม", " ", "รัก"], "ผม   รัก"), (WORDS, ["서", "울"], "서 울"), (LETTERS, ["a", "b"], "ab")],
    ids=["Thai words with a space", "single letters as words", "characters without a space"],
)
def test_words_are_joined_as_in_training(
    train: Train,
    rows: list[Any],
    words: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = export_bundle(train(rows).folder, tmp_path / "a.bundle", variants=["fp32"]).folder
    file = tmp_path / "words.conll"
    file.write_text("".join(f"{word}\tO\n" for word in words), encoding="utf-8")
    read: list[str] = []
    tokenize = encort.Model.tokenize
    with monkeypatch.context() as patch:
        patch.setattr(
            encort.Model, "tokenize", lambda *args, **options: [read.extend(args[1]), tokenize(*args, **options)][1]
        )
        for column in ("tokens", "text"):
            command = ["predict", os.fspath(folder), "--input", os.fspath(file), "--column", column]
            CliRunner().invoke(group, command, catch_exceptions=False)
    assert read == [text, text]
    with encort.load(folder) as model, model.serving() as service:
        monkeypatch.setattr(TaskRunner, "run", lambda *arguments: arguments[2])
        monkeypatch.setattr(Service, "_request", lambda *arguments: arguments[2])
        assert model.tag_words([words]) == [text]
        assert service.tag_words(words) == text


def test_training_further_joins_the_tokens_as_before(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    first = train(LETTERS)
    with caplog.at_level(logging.WARNING, logger="encort"):
        again = train(WORDS, model=first.folder)
    assert again.config["labelled_tokens"] == "characters"
    assert "trained on lists of characters, and the training data seems to hold words" in caplog.text
    caplog.clear()
    from_scratch = train(WORDS, model=first.folder, from_scratch=True)
    assert from_scratch.config["labelled_tokens"] == "words"
    assert train(SPANS, model=first.folder).config["labelled_tokens"] == "characters"
    assert "lists of" not in caplog.text


def test_an_unknown_kind_of_tokens_is_refused(train: Train, tmp_path: Path) -> None:
    folder = train(WORDS).folder
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"labelled_tokens": "syllables"}))
    with pytest.raises(CheckpointError, match="labelled_tokens must be one of words, characters; got 'syllables'"):
        export_bundle(folder, tmp_path / "a.bundle")
    with pytest.raises(CheckpointError, match="labelled_tokens must be one of words, characters"):
        train(WORDS, model=folder)
