"""Jobs over corpora: all files, in order, part by part, and on after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import encort
from encort.errors import EncortError, InputError, OutputExistsError
from encort.export.exporter import export_bundle
from encort.runtime.cli.main import group

pa = pytest.importorskip("pyarrow")
dataset = pytest.importorskip("pyarrow.dataset")
parquet = pytest.importorskip("pyarrow.parquet")

Embed = Callable[..., str]

TEXTS = [f"{'my card ' * (number % 5)}{number}" for number in range(50)]


@pytest.fixture(scope="module")
def expected(encoder_bundle: Path) -> Iterator[Any]:
    with encort.load(encoder_bundle, threads=1) as model:
        yield model.embed(TEXTS)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with three Parquet files in two partitions, and a file that is no data."""
    for number, (name, start, stop) in enumerate([("lang=a/x", 0, 20), ("lang=a/y", 20, 27), ("lang=b/x", 27, 50)]):
        file = tmp_path / "corpus" / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        kind = pa.int32() if number == 1 else pa.int64()
        table = pa.table({"id": pa.array(range(start, stop), kind), "text": TEXTS[start:stop]})
        parquet.write_table(table, file, row_group_size=8)
    (tmp_path / "corpus" / "_SUCCESS").write_text("")
    return tmp_path / "corpus"


@pytest.fixture
def embed(encoder_bundle: Path) -> Embed:
    """`embed("-i", corpus, "-o", folder)` returns what the command writes to stderr."""

    def run(*arguments: str | Path) -> str:
        command = ["embed", str(encoder_bundle), "--threads", "1", *map(os.fspath, arguments)]
        result = CliRunner().invoke(group, command)
        if result.exception is not None:
            raise result.exception
        return result.stderr

    return run


def read(folder: Path) -> Any:
    return dataset.dataset(folder).to_table()


def test_all_rows_of_all_files_are_there_in_order(embed: Embed, corpus: Path, tmp_path: Path, expected: Any) -> None:
    embed("-i", corpus, "-o", tmp_path / "out", "--part-rows", "16")
    table = read(tmp_path / "out")
    assert table["id"].to_pylist() == list(range(50))
    assert table["lang"].to_pylist() == ["a"] * 27 + ["b"] * 23
    np.testing.assert_allclose(np.stack(table["embedding"].to_pylist()), expected, atol=1e-6)
    parts = sorted(file.name for file in (tmp_path / "out").glob("*.parquet"))
    assert parts == [f"part-{number:05}.parquet" for number in range(4)]


def test_memory_keeps_no_chunk_that_is_written(
    embed: Embed, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from encort.runtime.corpus import job, outputs

    monkeypatch.setattr(job, "CHUNK_ROWS", 4)
    write = outputs._ParquetPart.write
    tables: list[Any] = []
    alive = []

    def counting(part: Any, table: Any) -> None:
        alive.append(sum(reference() is not None for reference in tables))
        tables.append(weakref.ref(table))
        write(part, table)

    monkeypatch.setattr(outputs._ParquetPart, "write", counting)
    embed("-i", corpus, "-o", tmp_path / "out")
    assert alive == [0] * 13


def test_a_glob_names_some_files(embed: Embed, corpus: Path, tmp_path: Path) -> None:
    embed("-i", corpus / "*" / "x.parquet", "-o", tmp_path / "out")
    assert read(tmp_path / "out")["id"].to_pylist() == [*range(20), *range(27, 50)]


@pytest.mark.parametrize("precision", ["float32", "float16", "binary"])
def test_an_array_grows_in_its_place(
    embed: Embed, corpus: Path, tmp_path: Path, encoder_bundle: Path, precision: Any
) -> None:
    embed("-i", corpus, "-o", tmp_path / "x.npy", "--part-rows", "16", "--output-precision", precision)
    with encort.load(encoder_bundle, threads=1) as model:
        vectors = model.embed(TEXTS, precision=precision)
    array = np.load(tmp_path / "x.npy")
    assert array.dtype == vectors.dtype
    np.testing.assert_allclose(array, vectors, atol=1e-6 if precision == "float32" else 1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "x.npy"]


ROWS: list[Any] = [{"text": "hello", "n": 1}, {"text": None, "n": 2.5}, {"text": "my card", "more": [1]}]


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_rows_keep_their_columns_and_bad_ones_their_place(embed: Embed, tmp_path: Path, ending: str) -> None:
    lines = {
        ".jsonl": [*map(json.dumps, ROWS), '{"text": "a', r'{"text": "\ud800"}', '{"text": "hello", "n": "x"}'],
        ".csv": ["text,n", "hello,1", "my card,2,3", '"my\ncard",3'],
    }
    (tmp_path / f"x{ending}").write_text("\n".join(lines[ending]), encoding="utf-8")
    said = embed("-i", tmp_path / f"x{ending}", "-o", tmp_path / "out", "--on-error", "column", "--part-rows", "2")
    table = read(tmp_path / "out").to_pylist()
    errors = [row["error"] and row["error"].partition(" ")[2][:12] for row in table]
    if ending == ".jsonl":
        assert [row["n"] for row in table] == ["1", "2.5", None, None, None, "x"]
        assert table[2]["more"] == [1]
        assert errors == [None, "row 2: colum", None, errors[3], "row 5 has an", None]
        assert "line 4 is not JSON" in table[3]["error"]
        assert "3 of 6 inputs cannot be used" in said
    else:
        assert [row["n"] for row in table] == ["1", None, "3"]
        assert [error is None for error in errors] == [True, False, True]


@pytest.mark.parametrize("value", [3, [1], float("nan"), {"a": "b"}, None])
def test_a_value_of_another_kind_among_texts_is_no_text(embed: Embed, tmp_path: Path, value: Any) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text("".join(json.dumps({"text": each, "n": 1}) + "\n" for each in ["hello", value]))
    embed("-i", file, "-o", tmp_path / "out", "--on-error", "column")
    first, second = read(tmp_path / "out").to_pylist()
    assert first["error"] is None
    assert second["error"] == f"x.jsonl, row 2: column 'text' holds {value}, expected a text"
    assert (second["n"], second["embedding"]) == (1, None)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_files_without_a_row_have_no_known_columns(embed: Embed, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"x.{ending}"
    file.write_text("text,n\n" if ending == "csv" else "")
    with pytest.raises(InputError, match=rf"x\.{ending} has no rows"):
        embed("-i", file, "-o", tmp_path / "out")


def test_a_row_may_stop_the_job_and_what_is_finished_is_kept(embed: Embed, corpus: Path, tmp_path: Path) -> None:
    file = corpus / "lang=b" / "x.parquet"
    table = parquet.read_table(file, partitioning=None)
    parquet.write_table(table.set_column(1, "text", pa.array([None, *TEXTS[28:]])), file)
    command = ["-i", corpus, "-o", tmp_path / "out", "--part-rows", "10"]
    with pytest.raises(InputError, match=r"lang=b/x\.parquet, row 1: column 'text' holds None"):
        embed(*command)
    assert read(tmp_path / "out")["id"].to_pylist() == list(range(20))
    with pytest.raises(OutputExistsError, match="whose options differ"):
        embed(*command, "--on-error", "skip", "--resume")
    embed("-i", corpus, "-o", tmp_path / "skipped", "--on-error", "skip")
    assert read(tmp_path / "skipped")["id"].to_pylist() == [*range(27), *range(28, 50)]


KILL = """
import os, signal, sys
from encort.runtime.corpus import job_log, outputs
place, count = sys.argv[1], int(sys.argv[2])
def dying(function):
    def call(*arguments):
        global count
        count -= 1
        if not count:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call
if place == "in a part":
    outputs._ParquetPart.write = dying(outputs._ParquetPart.write)
    outputs.NpyFile._vectors = dying(outputs.NpyFile._vectors)
elif place == "before the rename":
    os.fsync = dying(os.fsync)
elif place == "before the line":
    job_log.JobLog.add = dying(job_log.JobLog.add)
from encort.runtime.cli.main import main
sys.argv = ["encort", *sys.argv[3:]]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "places"), [("out", ["in a part", "before the rename", "before the line"]), ("x.npy", ["in a part"])]
)
def test_killed_jobs_go_on_and_give_the_same_rows(
    embed: Embed, encoder_bundle: Path, corpus: Path, tmp_path: Path, output: str, places: list[str], expected: Any
) -> None:
    command = ["embed", str(encoder_bundle), "--threads", "1", "-i", str(corpus), "-o", str(tmp_path / output)]
    command += ["--part-rows", "6", "--resume"]
    for place in places:
        count = "1" if place == "before the rename" else "2"
        done = subprocess.run([sys.executable, "-c", KILL, place, count, *command], check=False)
        assert done.returncode == -signal.SIGKILL
    (log,) = tmp_path.glob("*/_encort_job.jsonl")
    with log.open("a") as lines:
        lines.write('{"rows": 6, "wri')  # a kill in the middle of a line
    assert len(log.read_text().splitlines()) == len(places) + 2 - ("before the line" in places)
    embed(*command[2:])
    if output == "out":
        table = read(tmp_path / "out")
        assert table["id"].to_pylist() == list(range(50))
        vectors = np.stack(table["embedding"].to_pylist())
        assert not [file for file in (tmp_path / "out").iterdir() if file.name.startswith(".")]
    else:
        vectors = np.load(tmp_path / "x.npy")
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_finished_parts_are_not_written_again(embed: Embed, corpus: Path, tmp_path: Path) -> None:
    command = ["-i", corpus, "-o", tmp_path / "out", "--part-rows", "16"]
    embed(*command)
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.parquet")}
    with pytest.raises(OutputExistsError, match="4 finished parts of an earlier run; to go on with it, pass --resume"):
        embed(*command)
    embed(*command, "--resume")
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.parquet")} == before
    os.utime(corpus / "lang=a" / "x.parquet")  # a copied corpus is the same one
    embed(*command, "--resume")
    (corpus / "lang=b" / "x.parquet").unlink()
    with pytest.raises(OutputExistsError, match="another job, whose input differ"):
        embed(*command, "--resume")


def test_the_output_of_other_weights_in_the_same_graph_stays(
    embed: Embed, encoder_checkpoint: Path, corpus: Path, tmp_path: Path
) -> None:
    embed("-i", corpus, "-o", tmp_path / "out")
    changed = tmp_path / "changed"
    shutil.copytree(encoder_checkpoint, changed)
    weights = load_file(changed / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] *= 2  # small weights are in the graph itself
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    other = export_bundle(changed, tmp_path / "other", variants=["fp32"]).folder
    arguments = ["embed", other, "-i", corpus, "-o", tmp_path / "out", "--resume"]
    result = CliRunner().invoke(group, [*map(os.fspath, arguments)])
    assert isinstance(result.exception, OutputExistsError)
    assert "another job, whose bundle differ" in str(result.exception)


def test_the_folder_of_another_program_stays(embed: Embed, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter").write_text("dear")
    with pytest.raises(OutputExistsError, match=r"has no _encort_job\.jsonl"):
        embed("-i", corpus, "-o", tmp_path / "out", "--resume")


def test_two_processes_do_not_write_into_one_folder(embed: Embed, corpus: Path, tmp_path: Path) -> None:
    embed("-i", corpus, "-o", tmp_path / "out")
    code = (
        "import sys; from pathlib import Path; from encort.runtime.common.temporary import hold_lock\n"
        "with hold_lock(Path(sys.argv[1]), wait=True): print('held', flush=True); sys.stdin.read()"
    )
    log = tmp_path / "out" / "_encort_job.jsonl"
    with subprocess.Popen([sys.executable, "-c", code, log], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(InputError, match="another process writes into"):
            embed("-i", corpus, "-o", tmp_path / "out", "--resume")
        other.communicate()


def test_a_full_disk_is_one_error_and_the_job_goes_on(
    embed: Embed, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from encort.runtime.corpus import outputs

    command = ["-i", corpus, "-o", tmp_path / "out", "--part-rows", "10"]
    places = iter([None, None, OSError(28, "No space left on device")])
    sync = outputs._sync

    def full(file: Path) -> None:
        if (error := next(places, None)) is not None:
            raise error
        sync(file)

    monkeypatch.setattr(outputs, "_sync", full)
    with pytest.raises(InputError, match=r"out cannot be written: No space left on device.*--resume"):
        embed(*command)
    assert len(list((tmp_path / "out").glob("*"))) == 3  # two parts and the log
    embed(*command, "--resume")
    assert read(tmp_path / "out")["id"].to_pylist() == list(range(50))


def test_a_corpus_that_loses_rows_meanwhile_is_an_error(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from encort.runtime.corpus import job

    lines = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    file = tmp_path / "x.jsonl"
    file.write_text("".join(lines))
    open_log = job.JobLog.open

    def shrinking(*arguments: Any, **options: Any) -> Any:
        file.write_text("".join(lines[:25]))
        return open_log(*arguments, **options)

    monkeypatch.setattr(job, "CHUNK_ROWS", 10)
    monkeypatch.setattr(job.JobLog, "open", shrinking)
    with pytest.raises(InputError, match="lost rows while the job ran"):
        embed("-i", file, "-o", tmp_path / "out", "--part-rows", "10")


def _mixed(corpus: Path) -> None:
    table = pa.table({"id": ["one"], "text": ["hello"]})
    parquet.write_table(table, corpus / "lang=b" / "y.parquet")


def _damaged(corpus: Path) -> None:
    (corpus / "lang=b" / "y.parquet").write_bytes(b"PAR1 and no more")


def _another_kind(corpus: Path) -> None:
    (corpus / "lang=b" / "y.csv").write_text("text\nhello")


def _no_table(corpus: Path) -> None:
    for file in corpus.rglob("*.parquet"):
        file.rename(file.with_suffix(".bin"))


def _empty(corpus: Path) -> None:
    for file in corpus.rglob("*.parquet"):
        file.unlink()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (_mixed, [], r"y\.parquet does not fit the files before it"),
        (_damaged, [], r"y\.parquet cannot be read as Parquet"),
        (_another_kind, [], r"several kinds \(\.csv, \.parquet\)"),
        (_no_table, [], r"x\.bin is no table"),
        (_empty, [], "has no files"),
        (lambda _: None, ["--column", "body"], "no column 'body'; it has: id, text, lang"),
        (lambda _: None, ["--dimensions", "99"], "dimensions must be at most 40"),
    ],
)
def test_a_wrong_input_is_one_error_before_the_work(
    embed: Embed, corpus: Path, tmp_path: Path, change: Callable[[Path], None], options: list[str], message: str
) -> None:
    change(corpus)
    with pytest.raises(EncortError, match=message):
        embed("-i", corpus, "-o", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["x.jsonl", "x.parquet", "-"])
def test_a_job_needs_a_place_to_go_on(embed: Embed, corpus: Path, tmp_path: Path, output: str) -> None:
    with pytest.raises(InputError, match="writes a folder of Parquet files or an"):
        embed("-i", corpus, "-o", output if output == "-" else tmp_path / output)


@pytest.mark.parametrize("output", [".", "vectors", "lang=a/vectors", "x.npy"])
def test_an_output_inside_of_the_input_would_be_read_as_input(embed: Embed, corpus: Path, output: str) -> None:
    files = sorted(corpus.rglob("*"))
    with pytest.raises(InputError, match="is inside of the input"):
        embed("-i", corpus, "-o", corpus / output)
    assert sorted(corpus.rglob("*")) == files


def test_options_of_jobs_need_a_job(embed: Embed) -> None:
    with pytest.raises(InputError, match="--resume, --part-rows and --prefix are for jobs"):
        embed("hello", "--resume")


def test_a_corpus_without_rows_has_the_columns(embed: Embed, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "x.parquet")
    embed("-i", tmp_path / "x.parquet", "-o", tmp_path / "out")
    assert read(tmp_path / "out").column_names == ["text", "embedding", "tokens", "truncated", "error"]
    embed("-i", tmp_path / "x.parquet", "-o", tmp_path / "x.npy", "--resume")
    assert np.load(tmp_path / "x.npy").shape == (0, 40)
