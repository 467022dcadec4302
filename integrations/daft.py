"""A provider of text embedders for Daft.

Install it with `pip install "encort[daft]"`:

    import daft
    from daft.functions import embed_text
    from encort.integrations.daft import EncortProvider

    df = daft.read_parquet("s3://bucket/texts")
    df = df.with_column("embedding", embed_text(df["text"], provider=EncortProvider(), model="my.bundle"))
"""

from dataclasses import dataclass, field
from typing import Any

from encort.runtime.common.errors import InputError
from encort.runtime.common.extras import require

require("encort.integrations.daft", "daft", "daft")

import pyarrow as pa  # noqa: E402 - after the check that daft is installed
from daft import DataType  # noqa: E402
from daft.ai.protocols import TextEmbedder, TextEmbedderDescriptor  # noqa: E402
from daft.ai.provider import Provider  # noqa: E402
from daft.ai.typing import EmbeddingDimensions, UDFOptions  # noqa: E402

from encort.integrations import arrow  # noqa: E402

__all__ = ["EncortProvider"]

_BATCH_ROWS = 4096
"""Texts per call: enough to find rows of equal length."""
_UDF_OPTIONS = ("batch_size", "max_retries", "on_error", "concurrency", "num_gpus")
"""Options of `embed_text` that are Daft's; all others are those of `encort.integrations.arrow.Embed`."""


class EncortProvider(Provider):
    """Gives bundles to `embed_text`: its `model` is a folder, a URL in an object store, or a name on the hub."""

    @property
    def name(self) -> str:
        """The name in messages of Daft."""
        return "encort"

    def get_text_embedder(
        self, model: str | None = None, dimensions: int | None = None, **options: Any
    ) -> TextEmbedderDescriptor:
        """Return the embedder of a bundle.

        Raises:
            InputError: There is no bundle, or no such option.
        """
        if model is None:
            raise InputError("name the bundle: embed_text(..., provider=EncortProvider(), model='my.bundle')")
        udf = {"batch_size": _BATCH_ROWS} | {name: options.pop(name) for name in _UDF_OPTIONS if name in options}
        return _Descriptor(model=model, options={"dimensions": dimensions, **options}, udf_options=udf)


@dataclass
class _Descriptor(TextEmbedderDescriptor):
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    udf_options: dict[str, Any] = field(default_factory=dict)

    def get_provider(self) -> str:
        return "encort"

    def get_model(self) -> str:
        return self.model

    def get_options(self) -> dict[str, Any]:
        return self.options

    def get_udf_options(self) -> UDFOptions:
        return UDFOptions(**self.udf_options)

    def get_dimensions(self) -> EmbeddingDimensions:
        with arrow.Embed(self.model, **self.options) as embed:
            none = embed.no_embeddings()
        return EmbeddingDimensions(size=none.shape[1], dtype=DataType.from_arrow_type(pa.from_numpy_dtype(none.dtype)))

    def instantiate(self) -> TextEmbedder:
        return _Embedder(arrow.Embed(self.model, **self.options))


class _Embedder(TextEmbedder):
    def __init__(self, embed: arrow.Embed) -> None:
        self._embed = embed

    def embed_text(self, text: list[str]) -> list[Any]:
        """Return one embedding per text; None where there is none to be had, such as for a null."""
        table = self._embed(pa.table({"text": pa.array(text, pa.string())}))
        return list(table["embedding"].to_pylist())
