"""The documents are true: their blocks run, their commands parse, their links and numbers are right."""

import ast
import json
import re
import shlex
import shutil
from pathlib import Path

import click
import pytest

from encort.runtime.bundle.manifest import FORMAT_VERSION, MANIFEST_FILE
from encort.runtime.cli.main import group

ROOT = Path(__file__).parents[2]
FILES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
DOCUMENTS = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in FILES}
README = DOCUMENTS["README.md"]
NEEDS_GPUS = {"docs/gpu.md"}
FRAMEWORKS = {"chromadb", "daft", "haystack", "langchain_core", "llama_index", "pyspark", "ray"}
"""Packages that a block may import. Without one of them, the block is skipped."""


def blocks(language: str, document: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)


def lines_of_shell_blocks(program: str) -> list[str]:
    shell = "\n".join(block for document in DOCUMENTS.values() for block in blocks("bash", document))
    return re.findall(rf"^{program} .*", shell, re.MULTILINE)


def code_blocks() -> list[object]:
    return [
        pytest.param(name, block, id=f"{name}-{number}")
        for name, document in DOCUMENTS.items()
        for number, block in enumerate(blocks("python", document))
    ]


def imported_packages(block: str) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in nodes]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(("name", "block"), code_blocks())
def test_python_blocks_run(
    name: str, block: str, classifier_bundle: Path, masked_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for framework in FRAMEWORKS & imported_packages(block):
        pytest.importorskip(framework, reason=f"needs {framework}")
    shutil.copytree(classifier_bundle, tmp_path / "my.bundle")
    shutil.copytree(classifier_bundle, tmp_path / "nli.bundle")
    shutil.copytree(masked_bundle, tmp_path / "words.bundle")
    manifest = json.loads((tmp_path / "nli.bundle" / MANIFEST_FILE).read_text(encoding="utf-8"))
    manifest["heads"][0]["labels"][0] = "entailment"
    (tmp_path / "nli.bundle" / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    program = compile(block, name, "exec")
    if name not in NEEDS_GPUS:
        exec(program, {})


@pytest.mark.parametrize("line", lines_of_shell_blocks("encort"))
def test_command_lines_parse(line: str) -> None:
    arguments = shlex.split(line, comments=True)[1:]
    command: click.Command | None = group
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), arguments.pop(0))
    assert command is not None, f"{line}: there is no such command"
    command.make_context(command.name, arguments)


@pytest.mark.parametrize("line", lines_of_shell_blocks("make"))
def test_make_targets_exist(line: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    examples = re.search(r"^EXAMPLES = (.*)", makefile, re.MULTILINE)
    targets = re.findall(r"^([\w-]+):", makefile, re.MULTILINE)
    assert examples is not None
    assert line.split()[1] in [*targets, *examples[1].split()]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files(name: str) -> None:
    prose = re.sub(r"^```.*?^```|`[^`\n]+`", "", DOCUMENTS[name], flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\((?!https?:)([^)#]+)", prose)
    folder = (ROOT / name).parent
    assert [link for link in links if not (folder / link).exists()] == []


@pytest.mark.parametrize("package", ["onnxruntime", "torch", "transformers"])
def test_the_readme_names_the_tested_versions(package: str) -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    version = re.search(rf"^{package}==(\d+\.\d+)", pins, re.MULTILINE)
    assert version is not None
    assert f"{package} {version[1]}" in README


def test_the_documents_name_the_format_version() -> None:
    assert f"`format_version`, now {FORMAT_VERSION}," in README
    assert f"it is {FORMAT_VERSION} now" in DOCUMENTS["docs/bundle.md"]


def test_numbers_before_the_table_are_those_of_the_table() -> None:
    """The tables are written from results; the sentences before them are written by hand."""
    section = README[README.index("## How fast") :]
    before, _, rest = section.partition("<!-- brief: ")
    table, _, _ = rest.partition("<!-- end -->")
    numbers = re.findall(r"\d[\d,]*(?:\.\d+)?", before)
    assert len(numbers) > 3
    assert [number for number in numbers if number not in table] == []
