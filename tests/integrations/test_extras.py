"""Without its library, an adapter says which extra to install."""

import importlib
import sys
import tomllib
from pathlib import Path

import pytest

from encort.errors import MissingExtraError
from encort.runtime.common import extras

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = {
    "arrow": "parquet",
    "chroma": "chroma",
    "daft": "daft",
    "haystack": "haystack",
    "langchain": "langchain",
    "llama_index": "llama-index",
    "ray": "ray",
    "spark": "spark",
}


@pytest.mark.parametrize(("module", "extra"), EXTRAS.items())
def test_a_missing_library_gives_the_install_command(module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    monkeypatch.delitem(sys.modules, f"encort.integrations.{module}", raising=False)
    with pytest.raises(MissingExtraError, match=rf'pip install "encort\[{extra}\]"'):
        importlib.import_module(f"encort.integrations.{module}")
    assert extra in PYPROJECT["project"]["optional-dependencies"]
