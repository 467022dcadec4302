"""Docstrings begin with a verb, or name the thing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("runtime", "integrations", "export", "training", "benchmarks", "tests", "examples")
VAGUE = ("What ", "How ", "Whose ", "Of ", "Another one", "The same")
"""Beginnings of sentences that have no subject, or a subject that the reader has to look for."""


def docstrings(code: str) -> Iterator[str]:
    """Yield the docstrings of a module and all that is in it, also those of attributes and constants."""
    for node in ast.walk(ast.parse(code)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield text.strip()


def test_docstrings_are_found_wherever_they_are() -> None:
    code = '"""A."""\nx = 1\n"""B."""\nclass C:\n    """C."""\n    def d(self):\n        """D."""\n        return ""'
    assert list(docstrings(code)) == ["A.", "B.", "C.", "D."]


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_begin_with_a_verb_or_name_the_thing(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    found = [
        f"{file.relative_to(ROOT)}: {text.splitlines()[0]}"
        for file in files
        for text in docstrings(file.read_text(encoding="utf-8"))
        if text.startswith(VAGUE)
    ]
    assert not found, "\n".join(found)
