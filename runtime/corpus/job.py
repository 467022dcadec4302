"""The walk of a job: chunks of a corpus, result columns, parts of the output."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from encort.runtime.bundle.manifest import TOKENIZER_FILE
from encort.runtime.corpus.columns import ERROR
from encort.runtime.corpus.job_log import FinishedPart, JobLog
from encort.runtime.corpus.outputs import Output
from encort.runtime.corpus.sources import Chunk, Corpus
from encort.runtime.corpus.tables import TableOptions, TableRunner
from encort.runtime.engine.pending import prefetch
from encort.runtime.engine.tokenizer_pool import CHUNK
from encort.runtime.model import Model

PART_ROWS = 8 * CHUNK
"""Rows per part, if the user does not say: what a kill may cost."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Result columns for all rows of a corpus.

    The memory holds three chunks of rows at most, so that it does not grow with the corpus.

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
        return math.ceil(self.part_rows / CHUNK)

    @property
    def _chunk_rows(self) -> int:
        return math.ceil(self.part_rows / self._chunks_per_part)

    def _write(self, runner: TableRunner, log: JobLog, skip: int, on_rows: Callable[[int, int], None]) -> None:
        error = self.options.prefix + ERROR
        tokens = self.options.prefix + "tokens"
        with ThreadPoolExecutor(max_workers=2) as threads:
            # The next chunk is begun while this one runs, so that the cores have work at the end of each chunk.
            results = prefetch(
                lambda chunk: threads.submit(_annotate, runner, chunk), self.corpus.chunks(self._chunk_rows, skip=skip)
            )
            while (first := next(results, None)) is not None:
                counts = []
                with self.output.part(log.parts) as write:
                    for rows, table in _chain(first, islice(results, self._chunks_per_part - 1)):
                        write(table)
                        errors = len(table) - table[error].null_count + rows - len(table)
                        read = pc.sum(table[tokens]).as_py() or 0
                        counts.append(FinishedPart(rows=rows, written=len(table), errors=errors, tokens=read))
                        on_rows(rows, read)
                log.add(_sum(counts))

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


def _chain(first: Any, others: Iterable[Any]) -> Iterator[Any]:
    yield first
    yield from others


def _sum(parts: Sequence[FinishedPart]) -> FinishedPart:
    names = ("rows", "written", "errors", "tokens")
    return FinishedPart(**{name: sum(getattr(part, name) for part in parts) for name in names})
