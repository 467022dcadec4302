"""Types as an IDE of a user sees them: complete, and strict about the values of options."""

import json
import subprocess
import sys
import typing
from enum import StrEnum
from pathlib import Path

import pytest

from encort.export.options import PoolingName, VariantKind, VariantName
from encort.runtime.bundle.manifest import Device, Pooling, Precision
from encort.runtime.options import DeviceName, PrecisionName

GOOD = """
from typing import Any

import encort
from numpy import float32, signedinteger, unsignedinteger

with encort.load("banking.bundle", device="cpu", precision="int8", threads=2) as model:
    same = encort.load("banking.bundle", device=["cuda:0", "cuda:1"], precision=model.variant.precision)
    dimension: int = model.embed(["a text"], overflow="window", stride=16).shape[1]
    label: str = model.classify(["a text", ("a", "pair")])[0].label
    start: int = model.tag(["a text"])[0][0].start
    score: float = model.answer([("question", "context")], n_best=3)[0][0].score
    codes = model.embed(["a text"], prompt="query", dimensions=8, precision="int8")
    first: signedinteger[Any] = codes[0, 0]
    bits: unsignedinteger[Any] = model.embed(["a text"], prompt=encort.Prompt("q: "), precision="ubinary")[0, 0]
    best: int = model.rank("a query", ["a document"], top_k=1)[0].index
    text: str = model.decode(model.tokenize(["a text"], return_offsets=True).ids)
    try:
        model.embed(["a text"])
    except encort.errors.OverloadedError as error:
        code: int = error.exit_code


async def serve(model: encort.Model) -> str:
    async with model.serving(max_wait_ms=2) as service:
        value: float32 = (await service.embed("a text", prompt="", dimensions=8, timeout_s=1))[0]
        return (await service.classify("a text", timeout_s=1, overflow="error")).label
"""

BAD = [
    'encort.load("banking.bundle", precision="int7")',
    'encort.load("banking.bundle", device="tpu")',
    'encort.load("banking.bundle", device=["cuda:0", "gpu1"])',
    'encort.load("banking.bundle", thread=2)',
    'model.embed(["a text"], overflow="cut")',
    'model.tokenize(["a text"], overflow=None)',
    'model.embed(["a text"], precision="int4")',
    'text: str = model.embed(["a text"], precision="int8")',
    'model.embed(["a text"], dimensions="8")',
    'model.embed(["a text"], prompt=3)',
    'model.rank(["a query"], ["a document"])',
    'model.serving().__enter__().embed("a text", precision="fp32")',
    'model.answer(["a question"], n_best="3")',
    'model.serving().__enter__().classify("a text", timeout=1)',
    'model.serving().__enter__().classify("a text", overflow="cut")',
    'number: int = model.classify(["a text"])[0].label',
    "model.labels",
]


def errors_of_a_type_checker(source: str, folder: Path) -> list[tuple[int, str]]:
    """Return line and message of every error that Pyright's engine finds in a program of a user."""
    (folder / "program.py").write_text(source, encoding="utf-8")
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}', encoding="utf-8")
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "program.py"]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    diagnostics = json.loads(checked.stdout)["generalDiagnostics"]
    return [
        (diagnostic["range"]["start"]["line"] + 1, diagnostic["message"])
        for diagnostic in diagnostics
        if diagnostic["severity"] == "error"
    ]


def test_a_right_program_has_no_type_error(tmp_path: Path) -> None:
    assert errors_of_a_type_checker(GOOD, tmp_path) == []


def test_every_wrong_value_and_name_is_a_type_error(tmp_path: Path) -> None:
    source = "\n".join(["import encort", 'model = encort.load("banking.bundle")', *BAD])
    lines = {line for line, _ in errors_of_a_type_checker(source, tmp_path)}
    assert [BAD[number] for number in range(len(BAD)) if number + 3 not in lines] == []


@pytest.mark.parametrize(
    ("literal", "enumeration"),
    [(PrecisionName, Precision), (DeviceName, Device), (PoolingName, Pooling), (VariantName, VariantKind)],
)
def test_the_values_of_an_option_are_those_of_the_enumeration(literal: object, enumeration: type[StrEnum]) -> None:
    values = {value for value in typing.get_args(literal) if value != "auto" and ":" not in value}
    assert values == {member.value for member in enumeration}
