"""Results are written completely or not at all, in the format of the file ending."""

import json
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from encort.runtime.cli import parquet_rows, writers
from encort.runtime.cli.writers import open_writer
from encort.runtime.common.errors import EncortError, InputError, MissingExtraError

EMBEDDINGS = [
    {"embedding": [0.5, 1.5], "tokens": 3, "truncated": False},
    {"embedding": [2.5, 3.5], "tokens": 9, "truncated": True},
    {"embedding": [4.5, 5.5], "tokens": 4, "truncated": False},
]
LABELS = [{"label": "안녕 \u2028", "score": 0.75, "tokens": 3, "truncated": False}]
NONE = np.empty((0, 2), np.float32)
ENDINGS = [".jsonl", ".npy", ".parquet"]


def write(output: Path | None, *chunks: list[Any]) -> None:
    with open_writer(output, no_embeddings=lambda: NONE) as writer:
        for chunk in chunks:
            writer.write(chunk)


def write_and_fail(output: Path, error: BaseException | type[BaseException]) -> None:
    with open_writer(output, no_embeddings=lambda: NONE) as writer:
        writer.write(EMBEDDINGS)
        raise error


def test_json_lines_have_one_record_per_line(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", EMBEDDINGS[:2], EMBEDDINGS[2:])
    lines = (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == EMBEDDINGS


def test_json_lines_have_no_escapes(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", LABELS)
    content = (tmp_path / "x.jsonl").read_bytes().decode()
    assert "안녕" in content
    assert [json.loads(line) for line in content.removesuffix("\n").split("\n")] == LABELS


def test_npy_has_float32_rows_in_order(tmp_path: Path) -> None:
    write(tmp_path / "x.npy", EMBEDDINGS[:2], EMBEDDINGS[2:])
    array = np.load(tmp_path / "x.npy", allow_pickle=False)
    assert (array.shape, array.dtype) == ((3, 2), np.float32)
    assert array.tolist() == [record["embedding"] for record in EMBEDDINGS]


def test_parquet_has_one_row_per_record(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", EMBEDDINGS[:2], EMBEDDINGS[2:])
    assert parquet.read_table(tmp_path / "x.parquet").to_pylist() == EMBEDDINGS
    write(tmp_path / "y.parquet", LABELS)
    assert parquet.read_table(tmp_path / "y.parquet").to_pylist() == LABELS


def test_standard_output_gets_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    write(None, EMBEDDINGS)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == EMBEDDINGS


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_records_still_make_a_file(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"x{ending}")
    assert [path.name for path in tmp_path.iterdir()] == [f"x{ending}"]


def test_npy_without_records_has_the_dimension(tmp_path: Path) -> None:
    write(tmp_path / "x.npy")
    array = np.load(tmp_path / "x.npy", allow_pickle=False)
    assert (array.shape, array.dtype) == ((0, 2), np.float32)


@pytest.mark.parametrize("earlier", [True, False])
def test_a_link_leads_to_the_results_and_stays(tmp_path: Path, earlier: bool) -> None:
    (tmp_path / "results").mkdir()
    target = tmp_path / "results" / "x.jsonl"
    if earlier:
        target.write_text("earlier")
    (tmp_path / "link.jsonl").symlink_to(target)
    write(tmp_path / "link.jsonl", LABELS)
    assert (tmp_path / "link.jsonl").is_symlink()
    assert json.loads(target.read_text(encoding="utf-8")) == LABELS[0]
    assert len(list(target.parent.iterdir())) == 1


def test_npy_accepts_only_embeddings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.npy holds embeddings alone"):
        write(tmp_path / "x.npy", LABELS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_no_new_file_and_keeps_an_old_one(
    tmp_path: Path, ending: str, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        write_and_fail(tmp_path / f"new{ending}", error)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / f"old{ending}").write_text("old")
    with pytest.raises(error):
        write_and_fail(tmp_path / f"old{ending}", error)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(f"old{ending}", "old")]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_file_appears_only_at_the_end(tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"x{ending}"
    with open_writer(output, no_embeddings=lambda: NONE) as writer:
        writer.write(EMBEDDINGS)
        assert not output.exists()
    assert output.exists()


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_earlier_file_is_replaced(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"x{ending}", EMBEDDINGS)
    first = (tmp_path / f"x{ending}").read_bytes()
    write(tmp_path / f"x{ending}", EMBEDDINGS[:1])
    assert (tmp_path / f"x{ending}").read_bytes() != first


@pytest.mark.parametrize("name", ["x.csv", "x", "x.json", ".npy"])
def test_the_error_for_an_unknown_ending_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"use one of \.jsonl, \.npy, \.parquet"):
        write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_ending_may_be_in_upper_case(tmp_path: Path, ending: str) -> None:
    for name in (f"x{ending}", f"y{ending.upper()}"):
        write(tmp_path / name, EMBEDDINGS)
    assert (tmp_path / f"y{ending.upper()}").read_bytes() == (tmp_path / f"x{ending}").read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_error_of_the_caller_is_not_translated(tmp_path: Path, ending: str) -> None:
    error = TimeoutError("an error of the input")
    with pytest.raises(TimeoutError) as raised:
        write_and_fail(tmp_path / f"x{ending}", error)
    assert raised.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["write", "close"])
def test_an_error_of_the_writer_names_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    class FullDisk:
        def write(self, _records: Any) -> None:
            if failing == "write":
                raise OSError("the disk is full")

    @contextmanager
    def opened(_file: Path, _no_embeddings: object) -> Iterator[Any]:
        yield FullDisk()
        raise OSError("the disk is full")

    monkeypatch.setitem(writers._WRITERS, ".npy", opened)
    with pytest.raises(InputError, match=r"x\.npy cannot be written: the disk is full"):
        write(tmp_path / "x.npy", EMBEDDINGS)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_missing_folder_is_named(tmp_path: Path, ending: str) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        write(tmp_path / "nowhere" / f"x{ending}")


def test_a_plain_name_is_a_file_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("x.jsonl"), EMBEDDINGS)
    assert (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_folder_instead_of_the_file_is_an_error_before_the_work(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"x{ending}").mkdir()
    with pytest.raises(EncortError), open_writer(tmp_path / f"x{ending}", no_embeddings=lambda: NONE):
        pytest.fail("the work started")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_cannot_be_created_raises_an_error_of_encort(tmp_path: Path, ending: str) -> None:
    with pytest.raises(EncortError):
        write(tmp_path / ("x" * 300 + ending), EMBEDDINGS)


def test_parquet_without_pyarrow_gives_the_command_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with (
        pytest.raises(MissingExtraError, match=r'pip install "encort\[parquet\]"'),
        open_writer(tmp_path / "x.parquet", no_embeddings=lambda: NONE),
    ):
        pytest.fail("the work started")
    assert list(tmp_path.iterdir()) == []


def test_the_partial_file_of_a_killed_process_goes_with_the_next_output(tmp_path: Path) -> None:
    (tmp_path / f".x.npy.{'0' * 32}.partial").write_text("half")
    write(tmp_path / "x.npy", EMBEDDINGS)
    assert list(tmp_path.iterdir()) == [tmp_path / "x.npy"]


def test_json_lines_have_no_character_that_ends_a_line_or_steers_a_terminal(tmp_path: Path) -> None:
    label = "a\u2028b\u2029c\x85d\x9be\x7ff\x0cg\rh\x1b\ud800"
    with open_writer(tmp_path / "out.jsonl") as writer:
        writer.write([{"label": label}])
    (line,) = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert line.isprintable()
    assert json.loads(line) == {"label": label}


def test_parquet_has_the_columns_of_all_records(tmp_path: Path) -> None:
    with open_writer(tmp_path / "out.parquet") as writer:
        writer.write([{"label": "a"}, {"label": "b", "error": "c"}])
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == [
        {"label": "a", "error": None},
        {"label": "b", "error": "c"},
    ]


def test_groups_of_parquet_rows_get_the_types_of_all_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "GROUP", 2)
    spans = [{"label": "a", "score": 0.5}]
    records: list[Any] = [
        {"spans": [], "score": 1, "error": None},
        {"error": "null"},
        {"spans": spans, "score": 0.25, "cut": [None, [1, 2]]},
        {"embedding": np.ones(2, np.float16), "error": "b"},
        {"spans": [], "cut": [None]},
    ]
    write(tmp_path / "x.parquet", records[:1], records[1:])
    file = parquet.ParquetFile(tmp_path / "x.parquet")
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [2, 2, 1]
    names = ["spans", "score", "error", "cut", "embedding"]
    assert file.read().to_pylist() == [{name: record.get(name) for name in names} for record in records[:3]] + [
        {**dict.fromkeys(names), "embedding": [1.0, 1.0], "error": "b"},
        {**dict.fromkeys(names), "spans": [], "cut": [None]},
    ]


def test_parquet_keeps_one_group_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "GROUP", 4)
    with open_writer(tmp_path / "x.parquet") as writer:
        references = []
        for number in range(10):
            vector = np.full(3, number, np.float32)
            references.append(weakref.ref(vector))
            writer.write([{"embedding": vector}])
        del vector
        assert sum(reference() is not None for reference in references) == 2
    assert len(parquet.read_table(tmp_path / "x.parquet")) == 10
