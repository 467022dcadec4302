"""docs/errors.md has every error of encort, with its exit code, why it comes and what to do."""

import ast
import re
from pathlib import Path

import pytest

from encort import errors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
ENTRIES: dict[str, str] = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
CODES = {
    name: (int(first), int(last or first))
    for first, last, names in re.findall(r"^\| (\d+)(?: to (\d+))? \|(.*)\|.*\|$", PAGE, flags=re.MULTILINE)
    for name in re.findall(r"\[(\w+)\]", names)
}
"""First and last exit code of the rows of the table, by the errors that they link to."""
ALL = sorted(errors.__all__)


def error_classes() -> set[str]:
    """Return the names of the classes in the source whose parent is an error of encort."""
    files = [file for room in ("runtime", "integrations", "export", "training") for file in (ROOT / room).rglob("*.py")]
    return {
        node.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        if {ast.unparse(base).rpartition(".")[2] for base in node.bases} & set(errors.__all__)
    }


@pytest.mark.parametrize("name", ALL)
def test_every_error_has_an_entry_that_says_why_and_what_to_do(name: str) -> None:
    assert "**Why.**" in ENTRIES[name]
    assert "**What to do.**" in ENTRIES[name] or "what to do |" in ENTRIES[name]


@pytest.mark.parametrize("name", ALL)
def test_the_table_has_the_exit_code_of_every_error(name: str) -> None:
    error = getattr(errors, name)
    listed = next(parent.__name__ for parent in error.__mro__ if parent.__name__ in CODES)
    first, last = CODES[listed]
    assert first <= error.exit_code <= last


def test_the_page_has_no_error_that_does_not_exist() -> None:
    assert set(ENTRIES) == set(errors.__all__)


def test_every_error_is_public() -> None:
    assert error_classes() <= set(errors.__all__)
