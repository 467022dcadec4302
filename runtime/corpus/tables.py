"""An Arrow table in, the same table with result columns out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from encort.runtime.common.errors import InputError
from encort.runtime.common.tables.lines import Row, list_names
from encort.runtime.common.tables.parquet import batch_rows
from encort.runtime.corpus.columns import ERROR, result_columns, result_schema
from encort.runtime.corpus.inputs import Input, read_text, text_columns
from encort.runtime.corpus.records import Records
from encort.runtime.corpus.row_errors import OnError, RowRunner
from encort.runtime.engine.tokenizer_pool import CHUNK
from encort.runtime.model import Model
from encort.runtime.text.joined_words import JoinedWords
from encort.runtime.text.token_batch import Text, TokenBatch
from encort.runtime.text.windows import Overflow

Locate = Callable[[int], str]
"""Returns the place of a row of a table, for messages."""


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Options of `TableRunner`, which can be pickled.

    Attributes:
        records: Makes the records of a task.
        column: See `text_columns`.
        overflow: See `Model.tokenize`; None: the policy of the task.
        stride: See `Model.tokenize`.
        on_error: See `OnError`.
        prefix: Put before the names of the result columns.
    """

    records: Records
    column: str | None = None
    overflow: Overflow | None = None
    stride: int | None = None
    on_error: OnError = "column"
    prefix: str = ""

    def tokenization(self, model: Model) -> dict[str, Any]:
        """Return the options of `Model.tokenize`.

        Raises:
            WrongTaskError: The bundle has no head for these records.
            InputError: An option has no such value.
        """
        self.records.no_embeddings(model)  # refuses wrong options of embeddings
        settings = self.records.tokenization(model) | {"stride": self.stride}
        settings |= {} if self.overflow is None else {"overflow": self.overflow}
        model.tokenize([], **settings)
        return settings


class TableRunner:
    """Adds result columns to tables, for any number of threads.

    The columns are those of the records (`embedding`, or `label` and `score`, ...), `tokens`, `truncated` and `error`.
    """

    def __init__(self, model: Model, options: TableOptions) -> None:
        """Check the options.

        Raises:
            WrongTaskError: The bundle has no head for the records.
            InputError: An option has no such value.
        """
        self._model, self._options = model, options
        self._settings = options.tokenization(model)
        self._schemas: dict[type, pa.Schema] = {}

    def __call__(
        self, table: pa.Table, *, locate: Locate | None = None, errors: Mapping[int, InputError] | None = None
    ) -> pa.Table:
        """Return the table with result columns, without the rows that are left out.

        Args:
            table: Any table with the columns of texts.
            locate: Returns the place of a row; None: its number in the table.
            errors: Rows that could not be read, and why.

        Raises:
            InputError: The table has no column of texts, or has a result column already; or a row cannot be used, with
                `on_error="fail"`.
        """
        locate, errors = locate or (lambda row: f"row {row + 1}"), errors or {}
        columns = text_columns(table.column_names, self._options.column, "the table")
        schema = self.schema(table.schema)
        rows = (row for batch in table.select(columns).to_batches() for row in batch_rows(batch))
        inputs = [
            Input(location=locate(number), value=errors.get(number) or self._read(row, locate(number)))
            for number, row in enumerate(rows)
        ]
        on_error = self._options.on_error
        runner = RowRunner(
            tokenize=self._tokenize,
            make_records=lambda batch: self._options.records.make(self._model, batch),
            on_error="fail" if on_error == "fail" else "column",
            chunk=CHUNK,
        )
        records = [record for chunk in runner.run(inputs) for record in chunk]
        for name, values in zip(schema.names, result_columns(records, schema), strict=True):
            table = table.append_column(self._options.prefix + name, values)
        return table.filter(pc.is_null(table[self._options.prefix + ERROR])) if on_error == "skip" else table

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of the result columns of tables, without the prefix.

        Args:
            schema: Schema of the tables.

        Raises:
            InputError: The tables have no column of texts, or have a result column already.
        """
        sample = _sample(schema, text_columns(schema.names, self._options.column, "the table"))
        if type(sample) not in self._schemas:
            records = self._options.records.make(self._model, self._tokenize([sample]))
            self._schemas[type(sample)] = result_schema(records[0])
        results = self._schemas[type(sample)]
        taken = [name for name in results.names if self._options.prefix + name in schema.names]
        if taken:
            raise InputError(
                f"the table has columns that results would have too: {list_names(taken)}; rename them, or name the "
                "results otherwise with prefix= or --prefix"
            )
        return results

    def _read(self, row: Row | Exception, location: str) -> Text | InputError:
        if isinstance(row, Exception):
            return InputError(f"{location} cannot be read: {row}")
        return read_text(row, self._options.column, location)

    def _tokenize(self, texts: Sequence[Text]) -> TokenBatch:
        return self._model.tokenize(self._options.records.join(self._model, texts), **self._settings)


def _sample(schema: pa.Schema, columns: list[str]) -> Text:
    """Return an input of the kind that the columns hold."""
    if len(columns) == 2:
        return "a", "a"
    data_type = schema.field(columns[0]).type
    return JoinedWords.of(["a"]) if pa.types.is_list(data_type) or pa.types.is_large_list(data_type) else "a"
