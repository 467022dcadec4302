"""`encort embed` and `encort predict` over corpora: folders, globs, and outputs that go on after a kill."""

from pathlib import Path
from typing import Any

from encort.runtime.cli.progress import Progress
from encort.runtime.cli.writers import check_writes_errors
from encort.runtime.common.errors import InputError
from encort.runtime.common.extras import require
from encort.runtime.common.labelled_rows.columns import parse_header
from encort.runtime.common.output.terminal import echo
from encort.runtime.corpus.records import Records
from encort.runtime.model import Model, load

_FILES = (".jsonl", ".parquet")
"""Endings of files that a job does not write."""


def is_corpus(file: Path | None, output: Path | None, *, resume: bool) -> bool:
    """Return whether the command is a job: the input is a folder or a glob, the output a folder, or it is resumed."""
    if file is None or str(file) == "-":
        return False
    to_folder = output is not None and str(output) != "-" and (output.is_dir() or not output.suffix)
    return resume or file.is_dir() or (not file.exists() and _has_magic(file)) or to_folder


def run_corpus(
    records: Records,
    *,
    bundle: str,
    file: Path,
    header: str | None,
    output: Path | None,
    resume: bool,
    part_rows: int | None,
    load_options: dict[str, Any],
    **options: Any,
) -> None:
    """Write the results of a corpus.

    Args:
        records: Makes the records of the command.
        bundle: See `load`.
        file: See `Corpus.open`.
        header: Names of the columns, separated by commas.
        output: A folder, or an .npy file.
        resume: Whether to go on with an earlier run.
        part_rows: Rows per part; None: 65,536.
        load_options: Options of `load`.
        options: Other fields of `TableOptions`.

    Raises:
        InputError: Input or output cannot be used.
        OutputExistsError: See `JobLog.open`.
        MissingExtraError: pyarrow is not installed.
    """
    require("a job over a folder", "parquet", "pyarrow")
    from encort.runtime.corpus.job import PART_ROWS, Job
    from encort.runtime.corpus.sources import Corpus
    from encort.runtime.corpus.tables import TableOptions

    target = _check_output(output)
    if file.is_dir() and target.is_relative_to(file.absolute()):
        raise InputError(f"{output} is inside of the input {file}, and would be read as input: choose another output")
    if options["on_error"] == "column":
        check_writes_errors(target)
    corpus = Corpus.open(file, header=None if header is None else parse_header(header), column=options["column"])
    table_options = TableOptions(records=records, **options)
    progress = Progress(corpus.rows)
    with load(bundle, **load_options) as model:
        job = Job(
            model=model,
            corpus=corpus,
            options=table_options,
            output=_open_output(target, records, model, table_options.prefix),
            part_rows=part_rows or PART_ROWS,
        )
        total = job.run(resume=resume, on_skip=progress.skip, on_rows=progress.add)
    progress.close()
    if total.errors:
        echo(f"encort: {total.errors:,} of {total.rows:,} inputs cannot be used", err=True)


def _has_magic(file: Path) -> bool:
    return any(character in str(file) for character in "*?[")


def _check_output(output: Path | None) -> Path:
    if output is None or str(output) == "-" or output.suffix.lower() in _FILES:
        raise InputError(
            "a job over many files writes a folder of Parquet files or an .npy file: name one with --output, without "
            "an ending or with .npy"
        )
    return output.absolute()


def _open_output(output: Path, records: Records, model: Model, prefix: str) -> Any:
    from encort.runtime.corpus.outputs import NpyFile, ParquetParts

    if output.suffix.lower() != ".npy" or output.is_dir():
        return ParquetParts(output)
    none = records.no_embeddings(model)
    if not none.shape[1]:
        raise InputError(f"{output}: .npy holds embeddings alone; write other results into a folder")
    return NpyFile(output, none, f"{prefix}embedding")
