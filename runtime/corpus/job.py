"""The walk of a job: chunks of a corpus, result columns, parts of the output."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from encort.runtime.bundle.manifest import TOKENIZER_FILE
from encort.runtime.common.errors import InputError
from encort.runtime.corpus.columns import ERROR
from encort.runtime.corpus.job_log import FinishedPart, JobLog
from encort.runtime.corpus.outputs import Output, WriteTable
from encort.runtime.corpus.sources import Chunk, Corpus
from encort.runtime.corpus.tables import TableOptions, TableRunner
from encort.runtime.engine.pending import prefetch
from encort.runtime.model import Model

CHUNK_ROWS = 2048
"""Rows that are run together: enough to find texts of equal length, few enough that small jobs need as much memory."""
PART_ROWS = 32 * CHUNK_ROWS
"""Rows per part, if the user does not say: what a kill may cost."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Result columns for all rows of a corpus.

    The memory holds two chunks of rows at most, so that it does not grow with the corpus.

    Attributes:
        model: The model.
        corpus: The rows.
        options: The task, and what happens to rows that cannot be used.
        output: The output.
        part_rows: Rows of the input per part of the output.
    """

    model: Model
    corpus: Corpus
    options: TableOptions
    output: Output
    part_rows: int = PART_ROWS

    def run(self, *, resume: bool, on_skip: Callable[[int], None], on_rows: Callable[[int, int], None]) -> FinishedPart:
        """Write the parts that are not finished.

        Args:
            resume: Whether to go on with an earlier run.
            on_skip: Is called with the number of rows that an earlier run has finished.
            on_rows: Is called with rows and tokens after each chunk.

        Returns:
            The sums of all parts.

        Raises:
            OutputExistsError: See `JobLog.open`.
            InputError: The output cannot be written, a file is damaged, or a row cannot be used with
                `on_error="fail"`. What is finished is kept.
        """
        runner = TableRunner(self.model, self.options)
        runner.schema(self.corpus.schema)  # refuses missing columns before anything is written
        with JobLog.open(self.output.folder, self._description(), resume=resume) as log:
            finished = sum(part.rows for part in log.parts)
            on_skip(finished)
            if finished < self.corpus.rows or not log.parts:
                self._write(runner, log, finished, on_rows)
            self.output.finish(log.parts)
            return _sum(log.parts)

    @property
    def _chunks_per_part(self) -> int:
        return math.ceil(self.part_rows / CHUNK_ROWS)

    @property
    def _chunk_rows(self) -> int:
        return math.ceil(self.part_rows / self._chunks_per_part)

    def _write(self, runner: TableRunner, log: JobLog, skip: int, on_rows: Callable[[int, int], None]) -> None:
        with ThreadPoolExecutor(max_workers=2) as threads:
            # The next chunk is begun while this one runs, so that the cores have work at the end of each chunk.
            results = prefetch(
                lambda chunk: threads.submit(_annotate, runner, chunk), self.corpus.chunks(self._chunk_rows, skip=skip)
            )
            remaining = max(1, math.ceil((self.corpus.rows - skip) / self._chunk_rows))
            while remaining:
                chunks = min(remaining, self._chunks_per_part)
                with self.output.part(log.parts) as write:
                    counts = [self._store(results, write, on_rows) for _ in range(chunks)]
                log.add(_sum(counts))
                remaining -= chunks

    def _store(
        self, results: Iterator[tuple[int, pa.Table]], write: WriteTable, on_rows: Callable[[int, int], None]
    ) -> FinishedPart:
        """Write the next chunk. Nothing keeps its table afterwards, so that memory holds two chunks at most."""
        rows, table = next(results, (0, None))
        if table is None:
            raise InputError(f"{self.corpus.root} lost rows while the job ran; start again with another output")
        write(table)
        errors = len(table) - table[self.options.prefix + ERROR].null_count + rows - len(table)
        tokens = pc.sum(table[self.options.prefix + "tokens"]).as_py() or 0
        on_rows(rows, tokens)
        return FinishedPart(rows=rows, written=len(table), errors=errors, tokens=tokens)

    def _description(self) -> Mapping[str, Any]:
        """Return what must be the same when the job goes on."""
        files, variant = self.model.manifest.files, self.model.variant
        names = [variant.file, variant.weights_file, TOKENIZER_FILE]
        return {
            "bundle": [files[name].sha256 for name in names if name is not None],
            "options": repr(self.options),
            "rows per part": self._chunk_rows * self._chunks_per_part,
            "input": self.corpus.describe(),
        }


def _annotate(runner: TableRunner, chunk: Chunk) -> tuple[int, pa.Table]:
    """Return the number of rows, and the table with result columns."""
    return len(chunk.table), runner(chunk.table, locate=chunk.locate, errors=chunk.errors)


def _sum(parts: Sequence[FinishedPart]) -> FinishedPart:
    names = ("rows", "written", "errors", "tokens")
    return FinishedPart(**{name: sum(getattr(part, name) for part in parts) for name in names})
