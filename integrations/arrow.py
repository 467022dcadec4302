"""Result columns for Arrow tables: for batch engines such as Ray Data, Spark and Daft, and for scripts.

Install it with `pip install "encort[parquet]"`:

    import pyarrow as pa
    from encort.integrations.arrow import Embed

    embed = Embed("my.bundle", prompt="document")
    table = embed(pa.table({"id": [1, 2], "text": ["a text", "another"]}))  # id, text, embedding, tokens, ...

The objects can be pickled. A process opens a bundle once, at the first table, for all objects with the same options of
`encort.load`.
"""

from typing import Any, Self, Unpack

from numpy.typing import NDArray

from encort.integrations.lazy_model import BundleOrModel, LoadKeywords, ModelOwner, shared_model
from encort.runtime.bundle.manifest import Task
from encort.runtime.common.aggregation import AggregationName
from encort.runtime.common.extras import require
from encort.runtime.corpus.records import EmbeddingRecords, PredictionRecords, Records
from encort.runtime.corpus.row_errors import OnError
from encort.runtime.model import Model
from encort.runtime.tasks.quantization import EmbeddingPrecision
from encort.runtime.tasks.specs import CLASSIFIERS
from encort.runtime.text.prompts import Prompt
from encort.runtime.text.windows import Overflow

require("encort.integrations.arrow", "parquet", "pyarrow")

import pyarrow as pa  # noqa: E402 - after the check that it is installed

from encort.runtime.corpus.tables import TableOptions, TableRunner  # noqa: E402

__all__ = ["Classify", "Embed", "Score", "Tag"]


class TableTask(ModelOwner):
    """A task over tables. Call it with a table to get the table with result columns.

    Closing one releases the model of all with the same bundle and options, until one of them is used again.
    """

    def __init__(self, bundle: BundleOrModel, options: TableOptions, load_options: LoadKeywords) -> None:
        """Use a bundle, which is opened at the first table."""
        self._model, self._options = shared_model(bundle, load_options), options
        self._opened: tuple[Model, TableRunner] | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the table with the columns of the results, `tokens`, `truncated` and `error`.

        `error` says why a row cannot be used, such as a null text. The other columns of such a row are null.

        Raises:
            InputError: The table has no column of texts, or has a result column already; or a row cannot be used, with
                `on_error="fail"`.
            BundleError: The folder is not a usable bundle.
            WrongTaskError: The bundle has no head for the task.
        """
        return self._runner()(table)

    def open(self) -> Self:
        """Open the bundle now, and check the options.

        Raises:
            EncortError: See `__call__`.
        """
        self._runner()
        return self

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of the table that a table with this schema becomes. It opens the bundle.

        Raises:
            EncortError: See `__call__`.
        """
        results = self._runner().schema(schema)
        names = [self._options.prefix + name for name in results.names]
        return pa.schema([*schema, *(field.with_name(name) for field, name in zip(results, names, strict=True))])

    def _runner(self) -> TableRunner:
        model = self._model.open()
        if self._opened is None or self._opened[0] is not model:  # the first table, or opened again after `close`
            self._opened = model, TableRunner(model, self._options)
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"bundle": self._model.bundle, "load_options": self._model.options, "options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._model, self._options = shared_model(state["bundle"], state["load_options"]), state["options"]
        self._opened = None


class Embed(TableTask):
    """Adds sentence embeddings to tables, in a column `embedding` of lists of equal length."""

    def __init__(
        self,
        bundle: BundleOrModel,
        *,
        column: str | None = None,
        prompt: str | Prompt | None = None,
        dimensions: int | None = None,
        output_precision: EmbeddingPrecision = "float32",
        overflow: Overflow | None = None,
        on_error: OnError = "column",
        prefix: str = "",
        **load_options: Unpack[LoadKeywords],
    ) -> None:
        """Use a bundle, which is opened at the first table.

        Args:
            bundle: Folder of a bundle, its URL in an object store, or `"hf://org/name@revision"`; or a loaded model.
            column: Column of the texts; None: `text` with `text_pair`, `tokens`, or `question` with `context`.
            prompt: See `Model.tokenize`.
            dimensions: See `Model.embed`.
            output_precision: `precision` of `Model.embed`.
            overflow: See `Model.tokenize`.
            on_error: For rows that cannot be used: `"column"` writes the error into the column `error`, `"skip"` leaves
                the row out, `"fail"` raises.
            prefix: Put before the names of the result columns.
            load_options: Options of `encort.load`.

        Raises:
            InputError: There is no such option, or it has no such value.
        """
        records = EmbeddingRecords(prompt=prompt, dimensions=dimensions, precision=output_precision)
        super().__init__(bundle, _options(records, column, overflow, on_error, prefix), load_options)

    def no_embeddings(self) -> NDArray[Any]:
        """Return an array of no embeddings, `(0, width)`, in the precision that was asked for. It opens the bundle.

        Raises:
            EncortError: See `__call__`.
        """
        return self._options.records.no_embeddings(self._model.open())


class Classify(TableTask):
    """Adds classes to tables: `label` and `score`, or `labels` where a text may have several."""

    def __init__(
        self,
        bundle: BundleOrModel,
        *,
        column: str | None = None,
        head: str | None = None,
        all_scores: bool = False,
        threshold: float | None = None,
        overflow: Overflow | None = None,
        on_error: OnError = "column",
        prefix: str = "",
        **load_options: Unpack[LoadKeywords],
    ) -> None:
        """Use a bundle, which is opened at the first table.

        Args:
            bundle: See `Embed`.
            column: See `Embed`.
            head: Name of the head; None: the first that classifies.
            all_scores: Add the score of every label, as `scores`.
            threshold: Least probability of the labels of a text that may have several; None: the bundle's threshold.
            overflow: See `Model.tokenize`.
            on_error: See `Embed`.
            prefix: See `Embed`.
            load_options: Options of `encort.load`.

        Raises:
            InputError: There is no such option, or it has no such value.
        """
        records = PredictionRecords(head=head, all_scores=all_scores, threshold=threshold, among=CLASSIFIERS)
        super().__init__(bundle, _options(records, column, overflow, on_error, prefix), load_options)


class Score(TableTask):
    """Adds the numbers of a regression head to tables, such as those of a cross-encoder, in a column `score`."""

    def __init__(
        self,
        bundle: BundleOrModel,
        *,
        column: str | None = None,
        head: str | None = None,
        overflow: Overflow | None = None,
        on_error: OnError = "column",
        prefix: str = "",
        **load_options: Unpack[LoadKeywords],
    ) -> None:
        """Use a bundle, which is opened at the first table; see `Classify`."""
        records = PredictionRecords(head=head, among=(Task.TEXT_REGRESSION,))
        super().__init__(bundle, _options(records, column, overflow, on_error, prefix), load_options)


class Tag(TableTask):
    """Adds the spans that a head finds to tables, in a column `spans`; or `tags` and `scores` of given words."""

    def __init__(
        self,
        bundle: BundleOrModel,
        *,
        column: str | None = None,
        head: str | None = None,
        aggregation: AggregationName | None = None,
        overflow: Overflow | None = None,
        on_error: OnError = "column",
        prefix: str = "",
        **load_options: Unpack[LoadKeywords],
    ) -> None:
        """Use a bundle, which is opened at the first table; see `Classify`, and `Model.tag` for `aggregation`."""
        records = PredictionRecords(head=head, aggregation=aggregation, among=(Task.TOKEN_CLASSIFICATION,))
        super().__init__(bundle, _options(records, column, overflow, on_error, prefix), load_options)


def _options(
    records: Records, column: str | None, overflow: Overflow | None, on_error: OnError, prefix: str
) -> TableOptions:
    return TableOptions(records=records, column=column, overflow=overflow, on_error=on_error, prefix=prefix)
