"""Licence and origin of a checkpoint, from its model card."""

import logging
from pathlib import Path

import pytest

from encort.export.source.model_card import ModelCard


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: mit\nbase_model: org/x\n---\n# Title", ModelCard(license="mit", base_model="org/x")),
        ("---\nlicense: [mit]\nbase_model: [org/x]\n---\n", ModelCard(license="mit", base_model="org/x")),
        ("---\nlicense: 3\nbase_model: [org/x, org/y]\n---\n", ModelCard()),
        ("---\ntags: [a]\n---\n", ModelCard()),
        ("# No metadata", ModelCard()),
        ("", ModelCard()),
    ],
)
def test_the_metadata_names_licence_and_base_model(tmp_path: Path, text: str, expected: ModelCard) -> None:
    (tmp_path / "README.md").write_text(text)
    assert ModelCard.read(tmp_path) == expected


def test_a_folder_without_a_card_is_fine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert ModelCard.read(tmp_path) == ModelCard()
    assert caplog.text == ""


@pytest.mark.parametrize("content", [b"---\nlicense: [mit\n---\n", b"---\n- a\n---\n", b"\xff\xfe", b"-" * (2**20 + 1)])
def test_a_damaged_card_is_a_warning(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "README.md").write_bytes(content)
    with caplog.at_level(logging.WARNING, "encort"):
        assert ModelCard.read(tmp_path) == ModelCard()
    assert "README.md cannot be read" in caplog.text
