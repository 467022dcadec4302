"""`TransformersParts`: tokenizer, settings and model card, where scripts and other libraries look for them."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from encort.integrations.sentence_transformers.inputs import as_texts, without_arrays
from encort.integrations.sentence_transformers.opened_bundle import OpenedBundle
from encort.integrations.sentence_transformers.tensors import EXTRA, torch_for
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.common.errors import BundleError, MissingExtraError
from encort.runtime.common.extras import is_installed, require
from encort.runtime.hub.download import open_bundle

if TYPE_CHECKING:
    import torch


def _json_files(bundle: Bundle) -> list[str]:
    return [name for name in bundle.manifest.files if name.endswith(".json")]


class TransformersParts(OpenedBundle):
    """Parts of a model that transformers and sentence-transformers make of the files of a bundle."""

    _STANDS_FOR: ClassVar[str]

    @property
    def _folder(self) -> str:
        """Folder with all small files of the bundle, after checking them. The model needs fewer files of the hub."""
        bundle = open_bundle(self.encort_model.bundle.source, files=_json_files)
        for name in _json_files(bundle):
            bundle.check(name)
        return str(bundle.folder)

    @cached_property
    def _tokenizers(self) -> dict[int, Any]:
        return {}

    @property
    def tokenizer(self) -> Any:
        """Tokenizer of transformers that reads texts as the model does; for its errors, see `config`."""
        require("the tokenizer of transformers", EXTRA, "transformers")
        limit = self.max_seq_length
        if limit not in self._tokenizers:
            self._tokenizers[limit] = self._read("AutoTokenizer", model_max_length=limit)
        return self._tokenizers[limit]

    def preprocess(self, inputs: Iterable[Any], prompt: str | None = None) -> dict[str, "torch.Tensor"]:
        """Return token ids and masks of texts or pairs, padded to the longest, as tensors."""
        torch_for("the result of preprocess")
        texts = as_texts(without_arrays(inputs), prompt or "")
        return dict(self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt"))

    tokenize = preprocess

    @property
    def config(self) -> Any:
        """Settings of the encoder, as transformers reads them.

        Raises:
            BundleError: A file of the bundle has changed, or transformers cannot read it.
            MissingExtraError: transformers is not installed.
        """
        require("the config of transformers", EXTRA, "transformers")
        return self._read("AutoConfig")

    @property
    def transformers_model(self) -> Any:
        """Name and settings of the encoder, where other libraries look for them. It has no weights."""
        return SimpleNamespace(name_or_path=self._folder, config=self.config)

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        """Yield nothing: a bundle has no modules of PyTorch."""
        return iter(())

    @cached_property
    def model_card_data(self) -> Any:
        """Model card of sentence-transformers, where its evaluators put their metrics.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
        """
        if not is_installed("sentence_transformers"):
            raise MissingExtraError("model_card_data", package="sentence-transformers>=6.2,<7")
        library = import_module("sentence_transformers")
        return getattr(library, f"{self._STANDS_FOR}ModelCardData")(local_files_only=True)

    def _read(self, loader: str, **options: object) -> Any:
        """Return what a class of transformers reads from the bundle, without running code from its folder."""
        folder = self._folder
        try:
            auto_class = getattr(import_module("transformers"), loader)
            return auto_class.from_pretrained(folder, trust_remote_code=False, **options)
        except ValueError as error:
            raise BundleError(
                f"{loader} of transformers cannot read {folder}, whose code encort never runs: {error}"
            ) from error
