"""The README's blocks work as they stand."""

import re
import shlex
import shutil
from pathlib import Path

import click
import pytest

from encort.runtime.cli.main import group

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [README, *(file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").rglob("*.md")))]


def blocks(language: str, document: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)


COMMANDS = re.findall(
    r"^encort .*", "\n".join(block for document in DOCUMENTS for block in blocks("bash", document)), re.MULTILINE
)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_run(block, classifier_bundle, tmp_path, monkeypatch):
    shutil.copytree(classifier_bundle, tmp_path / "banking.bundle")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("line", COMMANDS)
def test_command_lines_are_understood(line):
    arguments = shlex.split(line, comments=True)[1:]
    command = group
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), arguments.pop(0))
    command.make_context(command.name, arguments)


def test_make_targets_exist():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("bash")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
