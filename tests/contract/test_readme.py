"""The README's blocks work as they stand."""

import re
import shlex
import shutil
from pathlib import Path

import click
import pytest

from encort.runtime.cli import group

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_run(block, classifier_bundle, tmp_path, monkeypatch):
    shutil.copytree(classifier_bundle, tmp_path / "banking.bundle")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("line", re.findall(r"^encort .*", "\n".join(blocks("bash")), re.MULTILINE))
def test_command_lines_are_understood(line):
    arguments = shlex.split(line)[1:]
    command = group
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), arguments.pop(0))
    command.make_context(command.name, arguments)


def test_make_targets_exist():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("bash")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
