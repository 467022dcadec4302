"""Options of `encort export` for int8 and portable variants, and for labelled data."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from encort.export.verification.samples import sample_texts
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.cli.main import group, main
from encort.runtime.common.errors import DatasetError, InputError, InputTypeError

ROWS = [{"text": text, "label": "hello"} for text in sample_texts()[:12]]


def encort(*arguments: object) -> Result:
    """Run the command in this process, and raise its error."""
    result = CliRunner().invoke(group, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def make(name: str, content: str) -> Path:
        (tmp_path / name).write_text(content, encoding="utf-8")
        return tmp_path / name

    return make


def lines(texts: Iterable[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def jsonl(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("texts.txt", lines(sample_texts()[:10])),
        ("texts.jsonl", jsonl({"text": text} for text in sample_texts()[:10])),
        ("pairs.jsonl", jsonl({"question": text, "context": "hello"} for text in sample_texts()[:10])),
    ],
)
def test_export_calibrates_on_the_texts_of_a_file(
    encoder_checkpoint: Path,
    output: Path,
    write: Callable[[str, str], Path],
    caplog: pytest.LogCaptureFixture,
    name: str,
    content: str,
) -> None:
    options = ["--variant", "int8", "--calibration", write(name, content), "--weight-bits", "7"]
    stdout = encort("export", encoder_checkpoint, "-o", output, *options).stdout
    variant, _ = Bundle.open(output).manifest.variants
    assert (variant.name, variant.instruction_set) == ("cpu-int8", None)
    assert stdout.startswith(f"cpu-int8: cosine mean {variant.fidelity.mean_cosine:.5f}")
    assert "built-in texts" not in caplog.text
    texts = variant.calibration
    held_back = f"2 held back (cosine mean {texts.mean_cosine:.5f}, min {texts.min_cosine:.5f})"
    assert stdout.splitlines()[0].endswith(held_back)
    assert 0.998 <= texts.mean_cosine <= 1 + 1e-6
    assert 0.985 <= texts.min_cosine <= texts.mean_cosine + 1e-6


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--variant", "portable"], ["portable"]),
        (["--variant", "portable", "--variant", "fp32"], ["cpu-fp32", "cpu-fp32-ragged", "portable"]),
        ([], ["cpu-fp32", "cpu-fp32-ragged", "portable", "cpu-int8", "cpu-int8-ragged"]),
    ],
    ids=["one", "two", "all"],
)
def test_export_makes_the_variants_that_are_named(
    encoder_checkpoint: Path, output: Path, options: list[str], names: list[str]
) -> None:
    encort("export", encoder_checkpoint, "-o", output, *options)
    assert [variant.name for variant in Bundle.open(output).manifest.variants] == names


def test_export_prints_the_table_of_the_search(
    classifier_checkpoint: Path, output: Path, write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encort.export.int8.search._SMOOTHINGS", {"0.5": (0.5,)})
    options = ["--evaluation", write("labelled.jsonl", jsonl(ROWS)), "--max-drop", "100", "--weight-bits", "7"]
    stdout = encort("export", classifier_checkpoint, "-o", output, *options).stdout
    bundle = Bundle.open(output)
    assert stdout.startswith(bundle.read("search.md").decode())
    assert json.loads(bundle.read("search.json"))["max_drop"] == 100
    assert stdout.splitlines()[-1] == f"bundle: {output}"


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("texts.txt", "", InputError, "needs 8 different texts.* got 0"),
        ("texts.txt", "hello\n", InputError, "got 1"),
        ("texts.txt", "hello\n" * 100, InputError, "got 1"),
        ("texts.csv", "message\n" + "hello\n" * 10, InputError, "row 1 has no column 'text'; it has: message"),
        ("texts.jsonl", jsonl([{"text": 5}] * 10), InputError, "row 1: column 'text' holds 5"),
    ],
    ids=["empty", "one text", "one text again and again", "no column", "numbers"],
)
def test_export_refuses_bad_calibration_texts(
    encoder_checkpoint: Path,
    output: Path,
    write: Callable[[str, str], Path],
    name: str,
    content: str,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        encort("export", encoder_checkpoint, "-o", output, "--calibration", write(name, content))
    assert list(output.parent.iterdir()) == []


def test_calibration_texts_without_names_of_columns_get_them_by_an_option(
    encoder_checkpoint: Path, output: Path, write: Callable[[str, str], Path]
) -> None:
    options = ["--calibration", write("texts.csv", "1,hello\n" * 100), "--header", "id,text"]
    with pytest.raises(InputError, match="calibration needs 8 different texts, better a few hundred; got 1"):
        encort("export", encoder_checkpoint, "-o", output, *options)


@pytest.mark.parametrize("option", ["--calibration", "--evaluation"])
def test_export_refuses_a_missing_file(classifier_checkpoint: Path, output: Path, tmp_path: Path, option: str) -> None:
    with pytest.raises((InputError, DatasetError), match=r"there is no file .*none\.jsonl"):
        encort("export", classifier_checkpoint, "-o", output, option, tmp_path / "none.jsonl")
    assert list(output.parent.iterdir()) == []


def test_export_refuses_single_texts_for_a_model_of_pairs(
    classifier_checkpoint: Path, output: Path, write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from encort.export.source.export_source import ExportSource

    monkeypatch.setattr(ExportSource, "is_pairwise", True)
    file = write("texts.txt", lines(sample_texts()[:10]))
    with pytest.raises(InputTypeError, match="pair"):
        encort("export", classifier_checkpoint, "-o", output, "--variant", "int8", "--calibration", file)
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--variant", "fp16"], "'fp16' is not one of 'fp32', 'int8', 'portable'"),
        (["--weight-bits", "4"], "'4' is not one of '7', '8'"),
        (["--max-drop", "little"], "'little' is not a valid float"),
    ],
)
def test_wrong_options_exit_with_2(options: list[str], message: str) -> None:
    result = encort("export", "checkpoint", "-o", "out", *options)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("option", "content", "code", "message"),
    [
        ("--calibration", "", 3, "calibration needs 8 different texts, better a few hundred; got 0"),
        ("--evaluation", "text,label\nhello,hello\n", 40, "has 1 labelled examples; at least 10 are needed"),
    ],
)
def test_errors_are_one_line_on_stderr_and_an_exit_code(
    classifier_checkpoint: Path,
    output: Path,
    write: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    content: str,
    code: int,
    message: str,
) -> None:
    command = ["encort", "export", classifier_checkpoint, "-o", output, option, write("file.csv", content)]
    monkeypatch.setattr("sys.argv", [str(part) for part in command])
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    assert (stopped.value.code, captured.out) == (code, "")
    assert captured.err.startswith("encort: ")
    assert captured.err.endswith(f"{message}\n")
    assert captured.err.count("\n") == 1
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize(
    "option", [("--weight-bits", "7"), ("--calibration", "texts.txt"), ("--evaluation", "rows.csv")]
)
def test_options_for_int8_are_refused_without_int8(
    encoder_checkpoint: Path, output: Path, option: tuple[str, str], write: Callable[[str, str], Path]
) -> None:
    write("texts.txt", "\n".join("abcdefghij"))
    arguments = [write(value, "\n".join("abcdefghij")) if "." in value else value for value in option]
    with pytest.raises(InputError, match="none will be made"):
        encort("export", encoder_checkpoint, "-o", output, "--variant", "fp32", *arguments)
    assert list(output.parent.iterdir()) == []
