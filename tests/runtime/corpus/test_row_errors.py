"""Inputs that cannot be used stop the command, are left out, or have their error in their record."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from encort.runtime.cli.main import group
from encort.runtime.common.errors import InputError, InputTooLongError
from encort.runtime.corpus import row_errors
from encort.runtime.corpus.inputs import Input
from encort.runtime.corpus.row_errors import OnError, RowRunner
from encort.runtime.text.token_batch import Text

Invoke = Callable[..., Result]

GOOD = {"text": "hello"}
BAD_LINES: dict[str, tuple[bytes, str]] = {
    "null": (b'{"text": null}', "row 2: column 'text' holds None"),
    "number": (b'{"text": 3}', "row 2: column 'text' holds 3"),
    "list": (b"[1, 2]", "row 2: column 'text' holds [1, 2]"),
    "empty object": (b"{}", "row 2 has no column 'text'"),
    "another column": (b'{"message": "a"}', "row 2 has no column 'text'"),
    "half a pair": (b'{"text": "a", "text_pair": null}', "row 2: column 'text_pair' holds None"),
    "lone surrogate": (rb'{"text": "a\ud800"}', "row 2 has an unpaired surrogate"),
    "lone surrogate in a pair": (rb'{"text": "a", "text_pair": "\udc00"}', "row 2 has an unpaired surrogate"),
    "too long": (json.dumps({"text": "card " * 200}).encode(), "row 2 has more than 64 tokens"),
    "no JSON": (b'{"text": "a"', "line 2 is not JSON"),
    "name twice": (b'{"text": "a", "text": "b"}', "line 2 is not JSON: the key 'text' is there twice"),
    "no UTF-8": (b'{"text": "\xff"}', "line 2 is not UTF-8"),
    "deep": (b"[" * 100_000, "line 2 is not JSON"),
}


@pytest.fixture
def invoke() -> Invoke:
    """`invoke("embed", bundle, ...)` returns the result of a command; `code` is the exit code that it must have."""

    def run(*arguments: str | Path, code: int = 0, stdin: bytes | None = None) -> Result:
        result = CliRunner().invoke(group, [*map(os.fspath, arguments), "--threads", "1"], input=stdin)
        failure = getattr(result.exception, "exit_code", 0) if isinstance(result.exception, InputError) else None
        assert code == (result.exit_code if failure is None else failure), result.output
        return result

    return run


def read(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_every_bad_row_is_told_by_number(
    invoke: Invoke, classifier_bundle: Path, tmp_path: Path, line: bytes, message: str
) -> None:
    file = tmp_path / "x.jsonl"
    good = json.dumps(GOOD).encode()
    file.write_bytes(b"\n".join([good, line, good]))
    command = ["predict", classifier_bundle, "--input", file, "--overflow", "error"]
    failed = invoke(*command, code=4 if "64 tokens" in message else 3)
    assert f"{file}, {message}" in str(failed.exception)
    skipped = invoke(*command, "--on-error", "skip")
    whole = read(invoke("predict", classifier_bundle, "hello"))
    assert read(skipped) == whole * 2
    assert f"encort: 1 of 3 inputs cannot be used; the first: {file}, {message}" in skipped.stderr
    first, bad, last = read(invoke(*command, "--on-error", "column"))
    assert first == last == {**whole[0], "error": None}
    assert list(bad) == ["error"]
    assert f"{file}, {message}" in bad["error"]


def test_questions_that_leave_no_room_and_single_texts_are_bad_rows(
    invoke: Invoke, multi_head: Path, tmp_path: Path
) -> None:
    rows = [
        {"question": "what", "context": "hello card"},
        {"question": "card " * 200, "context": "hello card"},
        {"text": "no question"},
        {"question": "what", "context": None},
        {"question": "what", "context": "card " * 200},
    ]
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    result = invoke("predict", multi_head, "--head", "answers", "--input", file, "--on-error", "column")
    errors = [record["error"] for record in read(result)]
    assert [error is None for error in errors] == [True, False, False, False, True]
    for number, error in zip([2, 3, 4], errors[1:4], strict=True):
        assert error.startswith(f"{file}, row {number}")
    assert "shorten the first text" in errors[1]
    assert "pair of question and context" in errors[2]


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.txt"])
def test_other_files_have_bad_rows_too(invoke: Invoke, encoder_bundle: Path, tmp_path: Path, name: str) -> None:
    separator = {"x.csv": b",", "x.tsv": b"\t", "x.txt": b" "}[name]
    lines = [b"hello" + separator + b"1", b"\xff" + separator + b"1", b"hello" + separator + b"1"]
    header = [] if name == "x.txt" else [b"text" + separator + b"id"]
    (tmp_path / name).write_bytes(b"\n".join([*header, *lines]))
    records = read(invoke("embed", encoder_bundle, "--input", tmp_path / name, "--on-error", "column"))
    assert ["embedding" in record for record in records] == [True, False, True]
    assert "is not UTF-8" in records[1]["error"]


def test_standard_input_and_arguments_have_bad_rows_too(invoke: Invoke, encoder_bundle: Path) -> None:
    options = ["--on-error", "column", "--overflow", "error"]
    for result in (
        invoke("embed", encoder_bundle, *options, stdin=b"hello\n" + b"card " * 200 + b"\nhello\n"),
        invoke("embed", encoder_bundle, *options, "hello", "card " * 200, "hello"),
    ):
        records = read(result)
        assert [record["error"] is None for record in records] == [True, False, True]
        assert records[0] == records[2]


def test_an_empty_text_is_no_error(invoke: Invoke, encoder_bundle: Path) -> None:
    assert len(read(invoke("embed", encoder_bundle, stdin=b"\n\n"))) == 2


def test_all_rows_may_be_bad(invoke: Invoke, encoder_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("1\n2\n")
    command = ["embed", encoder_bundle, "--input", tmp_path / "x.jsonl", "--on-error"]
    assert read(invoke(*command, "skip")) == []
    assert [list(record) for record in read(invoke(*command, "column"))] == [["error"]] * 2
    invoke(*command, "skip", "--output", tmp_path / "x.npy")
    assert np.load(tmp_path / "x.npy").shape == (0, 40)


def test_parquet_has_errors_in_a_column(invoke: Invoke, encoder_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('3\n"hello"\n')
    output = tmp_path / "x.parquet"
    invoke("embed", encoder_bundle, "-i", tmp_path / "x.jsonl", "-o", output, "--on-error", "column")
    bad, good = parquet.read_table(output).to_pylist()
    assert (bad["embedding"], good["error"]) == (None, None)
    assert len(good["embedding"]) == 40
    assert "row 1" in bad["error"]


def test_an_array_has_no_place_for_errors(invoke: Invoke, encoder_bundle: Path, tmp_path: Path) -> None:
    result = invoke("embed", encoder_bundle, "hello", "-o", tmp_path / "x.npy", "--on-error", "column", code=3)
    assert "use --on-error skip" in str(result.exception)


@pytest.mark.parametrize(("option", "code"), [(("--overflow", "maybe"), 2), (("--stride", "-1"), 3)])
def test_a_wrong_option_is_no_error_of_a_row(
    invoke: Invoke, encoder_bundle: Path, option: tuple[str, str], code: int
) -> None:
    invoke("embed", encoder_bundle, "hello", *option, "--on-error", "skip", code=code)


def test_a_missing_file_is_no_error_of_a_row(invoke: Invoke, encoder_bundle: Path) -> None:
    invoke("embed", encoder_bundle, "--input", "nowhere.jsonl", "--on-error", "skip", code=3)


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("stage", ["tokenize", "make_records"])
def test_bad_inputs_among_many_are_found(monkeypatch: pytest.MonkeyPatch, stage: str, chunk: int) -> None:
    monkeypatch.setattr(row_errors, "CHUNK", chunk)
    calls = []

    def check(texts: Any) -> Any:
        calls.append(len(texts))
        if "bad" in texts:
            raise InputTooLongError(f"text {texts.index('bad')} is bad")
        return texts

    def accept(texts: Any) -> Any:
        return texts

    def make_runner(on_error: OnError) -> RowRunner:
        tokenize, make = (check, accept) if stage == "tokenize" else (accept, check)
        return RowRunner(
            tokenize=tokenize, make_records=lambda texts: [{"text": t} for t in make(texts)], on_error=on_error
        )

    texts: Sequence[Text] = [f"t{number}" if number % 7 else "bad" for number in range(40)]
    inputs = [Input(location=f"row {number}", value=text) for number, text in enumerate(texts)]
    runner = make_runner("column")
    records = [record for chunk in runner.run(inputs) for record in chunk]
    assert records == [
        {"error": f"row {number} is bad"} if text == "bad" else {"text": text, "error": None}
        for number, text in enumerate(texts)
    ]
    assert (runner.inputs, runner.errors, str(runner.first_error)) == (40, 6, "row 0 is bad")
    assert len(calls) <= 110  # a bisection, and not one call per input and error
    good = [{"text": text} for text in texts if text != "bad"]
    assert [record for chunk in make_runner("skip").run(inputs) for record in chunk] == good
    with pytest.raises(InputTooLongError, match="row 0 is bad"):
        list(make_runner("fail").run(inputs))
