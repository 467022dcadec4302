"""`encort embed`, `predict` and `inspect` write records in input order, exit with codes, and print no traceback."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from click.testing import CliRunner
from pyarrow import parquet

import encort
from encort.runtime.cli.main import group
from tests.runtime.conftest import EditManifest, PlainManifest, RunEncort

Invoke = Callable[..., str]

DIM = 40
TEXTS = ["hello", "", "my card is lost", "안녕하세요", "card " * 200]


@pytest.fixture
def invoke() -> Invoke:
    """`invoke("embed", bundle, ...)` returns the output of a command, which must succeed."""

    def run(*arguments: str | Path, stdin: str | None = None) -> str:
        result = CliRunner().invoke(group, [*map(os.fspath, arguments)], input=stdin, catch_exceptions=False)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    return run


def records(lines: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.splitlines()]


def assert_refused(done: subprocess.CompletedProcess[str], exit_code: int | None, message: str = "") -> None:
    """Check that a command failed with one line on stderr. `exit_code` None: any code but click's."""
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert done.returncode == exit_code or (exit_code is None and done.returncode not in {0, 2})
    *_, last = done.stderr.splitlines()
    assert last.startswith("encort: ")
    assert message in last


def test_embed_writes_one_record_per_text(invoke: Invoke, encoder_bundle: Path, encoder: encort.Model) -> None:
    lines = records(invoke("embed", encoder_bundle, *TEXTS))
    assert [list(record) for record in lines] == [["embedding", "tokens", "truncated"]] * len(TEXTS)
    np.testing.assert_allclose([record["embedding"] for record in lines], encoder.embed(TEXTS), atol=1e-6)
    assert [record["tokens"] for record in lines] == encoder.tokenize(TEXTS).lengths.tolist()
    assert [record["truncated"] for record in lines] == [False] * 4 + [True]


def test_predict_writes_labels(invoke: Invoke, classifier_bundle: Path, classifier: encort.Model) -> None:
    lines = records(invoke("predict", classifier_bundle, *TEXTS))
    assert [list(record) for record in lines] == [["label", "score", "tokens", "truncated"]] * len(TEXTS)
    assert [record["label"] for record in lines] == [result.label for result in classifier.classify(TEXTS)]
    assert lines[-1] | {"score": 0} == {"label": lines[-1]["label"], "score": 0, "tokens": 64, "truncated": True}


def test_predict_writes_all_scores_on_request(invoke: Invoke, classifier_bundle: Path) -> None:
    (record,) = records(invoke("predict", classifier_bundle, "hello", "--all-scores"))
    assert list(record) == ["label", "score", "scores", "tokens", "truncated"]
    assert list(record["scores"]) == ["card_lost", "change_pin", "hello"]
    assert record["scores"][record["label"]] == record["score"]
    assert sum(record["scores"].values()) == pytest.approx(1)


def test_predict_of_an_encoder_writes_embeddings(invoke: Invoke, encoder_bundle: Path) -> None:
    assert invoke("predict", encoder_bundle, "hello") == invoke("embed", encoder_bundle, "hello")


def test_embed_works_for_a_classifier(invoke: Invoke, classifier_bundle: Path) -> None:
    (record,) = records(invoke("embed", classifier_bundle, "hello"))
    assert len(record["embedding"]) == DIM


@pytest.mark.parametrize("dash", [[], ["--input", "-"]])
def test_standard_input_has_one_text_per_line(invoke: Invoke, classifier_bundle: Path, dash: list[str]) -> None:
    assert invoke("predict", classifier_bundle, *dash, stdin="hello\n\n안녕하세요\n") == invoke(
        "predict", classifier_bundle, "hello", "", "안녕하세요"
    )


def test_a_text_may_begin_with_a_dash_after_two_dashes(invoke: Invoke, classifier_bundle: Path) -> None:
    assert len(records(invoke("predict", classifier_bundle, "--", "-5", "--help"))) == 2


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl", "x.parquet"])
def test_pairs_come_from_two_columns(
    invoke: Invoke, classifier_bundle: Path, classifier: encort.Model, tmp_path: Path, name: str
) -> None:
    pairs = [("my card", "lost"), ("hello", "pin")]
    rows = [{"text": first, "text_pair": second} for first, second in pairs]
    if name == "x.parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    elif name == "x.jsonl":
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    else:
        separator = "," if name == "x.csv" else "\t"
        lines = [separator.join(pair) for pair in [("text", "text_pair"), *pairs]]
        (tmp_path / name).write_text("\n".join(lines))
    lines = records(invoke("predict", classifier_bundle, "--input", tmp_path / name))
    expected = classifier.classify(pairs)
    assert [(record["label"], record["tokens"]) for record in lines] == [
        (result.label, result.tokens) for result in expected
    ]
    assert lines != records(invoke("predict", classifier_bundle, "--input", tmp_path / name, "--column", "text"))


def test_many_texts_keep_their_order(invoke: Invoke, classifier_bundle: Path, classifier: encort.Model) -> None:
    texts = [f"{'card ' * (number % 7)}{number}" for number in range(1200)]
    lines = records(invoke("predict", classifier_bundle, stdin="\n".join(texts)))
    expected = classifier.classify(texts)
    assert [record["tokens"] for record in lines] == [result.tokens for result in expected]
    np.testing.assert_allclose([record["score"] for record in lines], [result.score for result in expected], atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_npy_has_float32_embeddings(
    invoke: Invoke, encoder_bundle: Path, encoder: encort.Model, tmp_path: Path, count: int
) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, TEXTS[:count])))
    assert invoke("embed", encoder_bundle, "-i", tmp_path / "x.jsonl", "-o", tmp_path / "x.npy") == ""
    array = np.load(tmp_path / "x.npy", allow_pickle=False)
    assert (array.shape, array.dtype) == ((count, DIM), np.float32)
    np.testing.assert_allclose(array, encoder.embed(TEXTS[:count]), atol=1e-6)


@pytest.mark.parametrize("count", [1, 5])
def test_parquet_has_float32_embeddings(invoke: Invoke, encoder_bundle: Path, tmp_path: Path, count: int) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, TEXTS[:count])))
    invoke("embed", encoder_bundle, "-i", tmp_path / "x.jsonl", "-o", tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.parquet")
    assert (table.num_rows, table.column_names) == (count, ["embedding", "tokens", "truncated"])
    assert table.schema.field("embedding").type.value_type == pyarrow.float32()
    assert (table.schema.field("tokens").type, table.schema.field("truncated").type) == (
        pyarrow.int64(),
        pyarrow.bool_(),
    )


@pytest.mark.parametrize("count", [1, 5])
def test_parquet_has_labels(invoke: Invoke, classifier_bundle: Path, tmp_path: Path, count: int) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, TEXTS[:count])))
    invoke("predict", classifier_bundle, "-i", tmp_path / "x.jsonl", "-o", tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.parquet")
    assert (table.num_rows, table.column_names) == (count, ["label", "score", "tokens", "truncated"])


def test_json_lines_are_the_same_in_a_file_and_on_standard_output(
    invoke: Invoke, classifier_bundle: Path, tmp_path: Path
) -> None:
    invoke("predict", classifier_bundle, *TEXTS, "-o", tmp_path / "x.jsonl")
    assert (tmp_path / "x.jsonl").read_text(encoding="utf-8") == invoke("predict", classifier_bundle, *TEXTS)


@pytest.mark.parametrize("command", ["embed", "predict"])
def test_no_texts_give_no_records(invoke: Invoke, classifier_bundle: Path, command: str) -> None:
    assert invoke(command, classifier_bundle, stdin="") == ""


@pytest.mark.parametrize("options", [["--threads", "1"], ["--device", "cpu"], ["--precision", "fp32"]])
def test_options_reach_the_model(invoke: Invoke, classifier_bundle: Path, options: list[str]) -> None:
    assert len(records(invoke("predict", classifier_bundle, "hello", *options))) == 1


def test_inspect_shows_heads_limits_and_certificates(
    invoke: Invoke, classifier_bundle: Path, encoder_bundle: Path
) -> None:
    output = invoke("inspect", classifier_bundle)
    for part in (
        "text-classification",
        "3 labels: card_lost, change_pin, hello",
        "mean pooling, L2 normalized",
        "64 tokens",
    ):
        assert part in output
    assert "cpu-fp32-ragged.onnx" in output
    assert "largest difference to eager PyTorch" in output
    assert "feature-extraction" in invoke("inspect", encoder_bundle)


def test_inspect_shortens_many_labels(invoke: Invoke, bundle: Path, edit_manifest: EditManifest) -> None:
    def seven_labels(plain: PlainManifest) -> None:
        plain["heads"][0]["labels"] = list("abcdefg")
        for variant in plain["variants"]:
            variant["outputs"]["logits"][-1] = "7"

    edit_manifest(seven_labels)
    assert "7 labels: a, b, c, d, …" in invoke("inspect", bundle)


def test_inspect_prints_the_manifest_as_json(invoke: Invoke, classifier_bundle: Path) -> None:
    manifest = (classifier_bundle / "encort.json").read_text(encoding="utf-8")
    assert invoke("inspect", classifier_bundle, "--json") == manifest


def test_the_module_is_the_command(run_encort: RunEncort, classifier_bundle: Path, invoke: Invoke) -> None:
    done = run_encort("predict", classifier_bundle, "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, invoke("predict", classifier_bundle, "hello"), "")


def missing_file(bundle: Path, _edit_manifest: EditManifest | None) -> None:
    (bundle / "tokenizer.json").unlink()


def changed_byte(bundle: Path, _edit_manifest: EditManifest | None) -> None:
    (bundle / "cpu-fp32.onnx").write_bytes((bundle / "cpu-fp32.onnx").read_bytes()[:-1] + b"x")


def unknown_version(_bundle: Path, edit_manifest: EditManifest) -> None:
    edit_manifest(lambda plain: plain.update(format_version=99))


def path_outside(_bundle: Path, edit_manifest: EditManifest) -> None:
    edit_manifest(lambda plain: plain["files"].update({"../x": {"sha256": "0", "bytes": 1}}))


def damaged_manifest(bundle: Path, _edit_manifest: EditManifest | None) -> None:
    (bundle / "encort.json").write_text("{")


def no_variant(_bundle: Path, edit_manifest: EditManifest) -> None:
    edit_manifest(lambda plain: plain.update(variants=[]))


@pytest.mark.parametrize(
    ("damage", "exit_code", "message"),
    [
        (damaged_manifest, 10, "encort.json is not JSON"),
        (missing_file, 11, "lacks tokenizer.json"),
        (changed_byte, 12, "is not the file that was exported"),
        (unknown_version, 13, "format_version 99"),
        (path_outside, 14, "names '../x'"),
        (no_variant, 15, "has no variant for device cpu"),
    ],
)
def test_every_kind_of_damage_has_its_own_exit_code(
    run_encort: RunEncort,
    bundle: Path,
    edit_manifest: EditManifest,
    damage: Callable[..., None],
    exit_code: int,
    message: str,
) -> None:
    damage(bundle, edit_manifest)
    assert_refused(run_encort("predict", bundle, "hello"), exit_code, message)


def test_inspect_refuses_a_damaged_bundle(run_encort: RunEncort, bundle: Path) -> None:
    damaged_manifest(bundle, None)
    assert_refused(run_encort("inspect", bundle), 10)
    assert_refused(run_encort("inspect", "nowhere"), 11, "encort export")


@pytest.mark.parametrize("option", [["--all-scores"], ["--n-best", "2"]])
def test_an_option_of_another_task_is_refused_before_texts_are_read(
    run_encort: RunEncort, encoder_bundle: Path, option: list[str]
) -> None:
    for more in ([], ["--overflow", "truncate"]):
        done = run_encort("predict", encoder_bundle, *option, *more, stdin=b"\xff\n")
        assert_refused(done, 16, "classification" if option == ["--all-scores"] else "no head for question-answering")


@pytest.mark.parametrize("option", ["--precision", "--overflow"])
def test_an_unknown_choice_is_refused_with_the_known_ones(
    run_encort: RunEncort, classifier_bundle: Path, option: str
) -> None:
    done = run_encort("predict", classifier_bundle, "hello", option, "other")
    assert done.returncode == 2
    assert "'other' is not one of '" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--device", "tpu"], 3, "device must be one of"),
        (["--threads", "0"], 3, "threads must be at least 1"),
        (["--input", "x.txt"], 3, "not both"),
        (["--column", "text"], 3, "--column is for tables"),
        (["--n-best", "2"], 16, "no head for question-answering; its heads: text-classification"),
        (["--output", "x.csv"], 3, "use one of .jsonl, .npy, .parquet"),
        (["--output", "nowhere/x.jsonl"], 3, "no folder nowhere"),
        (["--output", "x.npy"], 3, ".npy holds embeddings alone"),
        (["card " * 200, "--overflow", "error"], 4, "text 2 has more than 64 tokens"),
        ([b"\xff"], 3, "unpaired surrogate"),
    ],
)
def test_unusable_options_and_texts_are_refused(
    run_encort: RunEncort, classifier_bundle: Path, tmp_path: Path, arguments: list[Any], exit_code: int, message: str
) -> None:
    assert_refused(run_encort("predict", classifier_bundle, "hello", *arguments), exit_code, message)
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "arguments", [["predict"], ["predict", "bundle", "--nonsense"], ["embed", "bundle", "--threads", "x"], ["nonsense"]]
)
def test_a_usage_error_exits_with_2(run_encort: RunEncort, arguments: list[Any]) -> None:
    done = run_encort(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"hello\n\xff\n", "x.txt, line 2 is not UTF-8"),
        ("x.csv", b"message\nhello\n", "has no column 'text'; it has: message"),
        ("x.csv", b"text\n\xff\n", "x.csv, line 2 is not UTF-8"),
        ("x.jsonl", b'"hello"\nhello\n', "line 2 is not JSON"),
        ("x.jsonl", b"[" * 100_000, "x.jsonl"),
        ("x.jsonl", b'"\\ud800"\n', "unpaired surrogate"),
        ("x.parquet", b"not Parquet", "x.parquet"),
        ("nowhere.txt", None, "no file nowhere.txt"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_unreadable_input_is_refused_and_keeps_the_old_output(
    run_encort: RunEncort, encoder_bundle: Path, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "out.jsonl").write_text("old")
    assert_refused(run_encort("embed", encoder_bundle, "-i", name, "-o", "out.jsonl"), 3, message)
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} <= {name, "out.jsonl"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8:surrogateescape"])
def test_standard_input_in_another_encoding_is_refused(
    run_encort: RunEncort, encoder_bundle: Path, encoding: str
) -> None:
    done = run_encort("embed", encoder_bundle, stdin=b"hello\n\xff\n", PYTHONIOENCODING=encoding)
    assert_refused(done, 3)


def test_an_error_late_in_the_input_names_its_text_and_writes_nothing(
    run_encort: RunEncort, encoder_bundle: Path, tmp_path: Path
) -> None:
    stdin = b"hello\n" * 600 + b"card " * 200
    done = run_encort("embed", encoder_bundle, "-o", "x.jsonl", "--overflow", "error", stdin=stdin)
    assert list(tmp_path.iterdir()) == []
    assert_refused(done, 4, "standard input, line 601 has more than 64 tokens")


def test_a_folder_instead_of_the_output_is_refused(run_encort: RunEncort, encoder_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npy").mkdir()
    assert_refused(run_encort("embed", encoder_bundle, "hello", "-o", "x.npy"), None)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_an_output_that_cannot_be_created_is_refused(run_encort: RunEncort, encoder_bundle: Path) -> None:
    assert_refused(run_encort("embed", encoder_bundle, "hello", "-o", "x" * 300 + ".jsonl"), None)


def test_a_closed_standard_output_gives_no_traceback(encoder_bundle: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "encort", "embed", encoder_bundle],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        _, stderr = process.communicate(b"hello\n" * 1000, timeout=60)
    assert b"Traceback" not in stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110 - a device
def test_a_full_disk_gives_no_traceback(encoder_bundle: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, "-m", "encort", "embed", encoder_bundle, "hello"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode not in {0, 2}
    assert b"Traceback" not in done.stderr


def test_a_terminal_without_unicode_gets_the_output(
    run_encort: RunEncort, bundle: Path, edit_manifest: EditManifest
) -> None:
    edit_manifest(lambda plain: plain["heads"][0].update(labels=["안녕", "b", "c"]))
    done = run_encort("inspect", bundle, PYTHONIOENCODING="ascii")
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


def test_labels_cannot_steer_the_terminal(run_encort: RunEncort, bundle: Path, edit_manifest: EditManifest) -> None:
    labels = ["a\x1b]0;title\x07", "b\nsource  evil", "\x9b2J\u202e"]
    edit_manifest(lambda plain: plain["heads"][0].update(labels=labels))
    for command in (["inspect"], ["inspect", "--json"], ["predict", "--all-scores"]):
        done = run_encort(command[0], bundle, *command[1:], *(["hello"] if command[0] == "predict" else []))
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.stdout + done.stderr)
        if command[-1] != "inspect":
            assert "b\\nsource" in done.stdout
    assert "3 labels: a\\x1b]0;title\\x07, b\\x0asource  evil, " in run_encort("inspect", bundle).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["embed", "no\x1b[31m\udcff.bundle", "hello"],
        ["inspect", "no\x1b[31m\udcff.bundle"],
        ["inspect", "no.bundle", "more\x1b[31m\udcff"],
        ["train", "text-classification", "--model", "m", "--train", "no\x1b[31m\udcff.csv", "--output", "o"],
    ],
)
def test_names_of_files_cannot_steer_the_terminal(run_encort: RunEncort, arguments: list[str]) -> None:
    done = run_encort(*arguments)
    assert done.returncode > 0
    assert r"\x1b[31m\udcff" in done.stderr
    assert "\x1b" not in done.stderr
    assert "Traceback" not in done.stderr
