"""Code that a document quotes is the code of the repository.

A quotation is a block of `py` or `cpp` whose first line is a comment with the path of the file. Blocks of `python` are
programs, which `test_readme.py` runs.
"""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUOTATION = re.compile(r"^( *)```(?:py|cpp)\n *(?:#|//) (\S+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
QUOTATIONS = [
    pytest.param(path, textwrap.dedent(code).strip(), id=f"{document.stem}-{path}-{number}")
    for document in sorted((ROOT / "docs").rglob("*.md"))
    for number, (_, path, code) in enumerate(QUOTATION.findall(document.read_text(encoding="utf-8")))
]


def stripped(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


@pytest.mark.parametrize(("path", "code"), QUOTATIONS)
def test_quoted_code_is_in_the_file(path: str, code: str) -> None:
    lines, source = stripped(code), stripped((ROOT / path).read_text(encoding="utf-8"))
    starts = [number for number, line in enumerate(source) if line == lines[0]]
    assert any(source[start : start + len(lines)] == lines for start in starts), (
        f"{path} has other code: quote it again"
    )


def test_there_are_quotations() -> None:
    assert len(QUOTATIONS) > 5
