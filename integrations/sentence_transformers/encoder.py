"""`SentenceTransformer`: sentence embeddings of a bundle, with the signatures of sentence-transformers 6."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, Unpack, get_args, overload

import numpy as np
from numpy.typing import NDArray

from encort.integrations.sentence_transformers.bundle_model import BundleModel
from encort.integrations.sentence_transformers.inputs import as_texts, is_single_text, renamed, without_arrays
from encort.integrations.sentence_transformers.outputs import converted, finish, token_features
from encort.integrations.sentence_transformers.tensors import (
    SimilarityName,
    similarity,
    similarity_pairwise,
    torch_for,
)
from encort.runtime.bundle.manifest import SENTENCE_EMBEDDING, Similarity
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checks import check_choice, choice
from encort.runtime.common.errors import WrongTaskError
from encort.runtime.model import Model
from encort.runtime.tasks.quantization import EmbeddingPrecision, check_precision
from encort.runtime.text.prompts import DOCUMENT_NAMES, QUERY_NAMES, Prompt
from encort.runtime.text.token_batch import Text

if TYPE_CHECKING:
    from torch import Tensor

Inputs = str | Iterable[Any]
OutputValue = Literal["sentence_embedding", "token_embeddings"]


class EncodeOptions(TypedDict, total=False):
    """Options of `encode` that do not change the type of its result; see there."""

    device: Any
    normalize_embeddings: bool
    truncate_dim: int | None
    pool: Any
    chunk_size: int | None
    task: str | None


class SentenceTransformer(BundleModel):
    """A bundle as a `SentenceTransformer`.

    >>> model = SentenceTransformer("minilm.bundle")  # doctest: +SKIP
    >>> model.similarity(model.encode_query("Where is my card?"), model.encode_document(["It is lost."]))

    Attributes:
        truncate_dim: Number of leading values of the embeddings of `encode`; None: all.
    """

    _STANDS_FOR = "SentenceTransformer"
    _ORGANIZATION = "sentence-transformers"
    _PROMPTS: ClassVar[Mapping[str, str | None]] = {"query": None, "document": None}

    def __init__(
        self,
        model_name_or_path: str | Path | Model | None = None,
        *,
        modules: object = None,
        device: object = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | None = None,  # noqa: ARG002 - nothing is downloaded
        trust_remote_code: bool = False,  # noqa: ARG002 - a bundle has no code
        revision: str | None = None,
        local_files_only: bool = False,  # noqa: ARG002
        token: bool | str | None = None,  # noqa: ARG002
        use_auth_token: bool | str | None = None,  # noqa: ARG002
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        tokenizer_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        model_card_data: object = None,
        backend: str = "torch",  # noqa: ARG002 - it is ONNX Runtime
        similarity_fn_name: str | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        """Open a bundle, or take an open model.

        Args:
            model_name_or_path: Folder of a bundle, or `hf://org/name` of one on the hub; or, for its other options,
                what `encort.load` returned.
            modules: Refused, as `model_kwargs`, `processor_kwargs` and `config_kwargs` are, which change the model.
            device: Device of the bundle, or a list of GPUs; None: as `encort.load`.
            prompts: Prompts by name, in place of those of the bundle with the same name.
            default_prompt_name: Prompt for calls that name none; None: that of the bundle.
            cache_folder: Without effect, as all options for downloads, and `backend`.
            similarity_fn_name: Name of the similarity; None: that of the bundle.
            truncate_dim: See the attribute; None: as the bundle says.

        Raises:
            BundleError: It is no bundle, or one that cannot be used.
            WrongTaskError: The bundle has no sentence embeddings.
            InputError: A bundle cannot follow an option.
        """
        super().__init__(
            model_name_or_path,
            device=device,
            prompts=prompts,
            default_prompt_name=default_prompt_name,
            modules=modules,
            revision=revision,
            model_kwargs=model_kwargs,
            processor_kwargs=processor_kwargs or tokenizer_kwargs,
            config_kwargs=config_kwargs,
        )
        if model_card_data is not None:
            self.model_card_data = model_card_data
        embedding = self.encort_model.manifest.embedding
        if embedding is None:
            folder = self.encort_model.bundle.folder
            raise WrongTaskError(f"{folder} has no sentence embeddings; CrossEncoder gives the scores of a reranker")
        self.similarity_fn_name = similarity_fn_name or embedding.similarity
        self.truncate_dim = truncate_dim or embedding.truncate_dim

    @overload
    def encode(
        self,
        inputs: Inputs,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        output_value: Literal["sentence_embedding"] = ...,
        precision: EmbeddingPrecision | None = ...,
        convert_to_numpy: Literal[True] = ...,
        convert_to_tensor: Literal[False] = ...,
        **options: Unpack[EncodeOptions],
    ) -> NDArray[Any]: ...
    @overload
    def encode(
        self,
        inputs: Inputs,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        output_value: Literal["sentence_embedding"] = ...,
        precision: EmbeddingPrecision | None = ...,
        convert_to_numpy: bool = ...,
        *,
        convert_to_tensor: Literal[True],
        **options: Unpack[EncodeOptions],
    ) -> "Tensor": ...
    @overload
    def encode(
        self,
        inputs: Inputs,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        output_value: OutputValue | None = ...,
        precision: EmbeddingPrecision | None = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: bool = ...,
        **options: Unpack[EncodeOptions],
    ) -> Any: ...
    @renamed(sentences="inputs")
    def encode(
        self,
        inputs: Inputs,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: OutputValue | None = "sentence_embedding",
        precision: EmbeddingPrecision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: object = None,  # noqa: ARG002 - see start_multi_process_pool
        chunk_size: int | None = None,  # noqa: ARG002
        **options: Any,
    ) -> Any:
        """Return the embeddings of texts, `(n, dim)` float32, or of one text, `(dim,)`.

        Args:
            inputs: One text, or many: a list, a tuple, a column or an array of str.
            prompt_name: Name of the prompt that is put before each text.
            prompt: Text of the prompt; it comes before `prompt_name`.
            batch_size: Checked, and without effect: encort chooses the texts that it runs together by their lengths.
            show_progress_bar: Whether to show a progress bar. It needs tqdm.
            output_value: `"token_embeddings"` gives one tensor per text, `(tokens, hidden)`, and None a dict of
                tensors per text.
            precision: `"int8"` and `"uint8"` take the range of each dimension from the embeddings of the call;
                `"binary"` and `"ubinary"` have one bit per value.
            convert_to_numpy: Whether to return an array. If not, it is a list of tensors.
            convert_to_tensor: Whether to return one tensor.
            device: Device that the bundle is moved to, or a list of GPUs.
            normalize_embeddings: Whether to divide embeddings by their length, after they were truncated.
            truncate_dim: Number of leading values of each embedding; None: as the attribute says.
            pool: Without effect, as `chunk_size`: the process uses all cores, or all GPUs that it was given.
            chunk_size: See `pool`.
            options: `task` has no effect; others are refused.

        Raises:
            InputError: An input or an option cannot be used.
            MissingExtraError: A result is a tensor, and torch is not installed.
        """
        self._prepare_call(batch_size, device, options)
        precision = precision or "float32"
        check_precision(precision)
        inputs = without_arrays(inputs)
        is_single = is_single_text(inputs)
        texts = as_texts([inputs] if is_single else inputs)
        text = self._resolve_prompt(prompt, prompt_name)
        size = self.truncate_dim if truncate_dim is None else truncate_dim
        if output_value == "sentence_embedding":
            embeddings = self._embed(texts, text, show=show_progress_bar)
            values = finish(embeddings, size=size, precision=precision, normalize=normalize_embeddings)
            results = converted(values, lambda: self.device, as_tensor=convert_to_tensor, as_array=convert_to_numpy)
        else:
            results = self._encode_tokens(texts, text, output_value, size=size)
        return results[0] if is_single else results

    @renamed(sentences="inputs")
    def encode_query(
        self, inputs: Inputs, prompt_name: str | None = None, prompt: str | None = None, *arguments: Any, **options: Any
    ) -> Any:
        """Return embeddings as `encode` does, with the prompt named `query` if no other is given."""
        return self.encode(inputs, self._first_prompt(prompt_name, prompt, QUERY_NAMES), prompt, *arguments, **options)

    @renamed(sentences="inputs")
    def encode_document(
        self, inputs: Inputs, prompt_name: str | None = None, prompt: str | None = None, *arguments: Any, **options: Any
    ) -> Any:
        """Return embeddings as `encode` does, with the prompt named `document`, `passage` or `corpus`, if there is one.

        A prompt that is given comes before it.
        """
        name = self._first_prompt(prompt_name, prompt, DOCUMENT_NAMES)
        return self.encode(inputs, name, prompt, *arguments, **options)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> "Tensor":
        """Return the similarity of all embeddings with all others, a tensor `(first, second)`.

        Raises:
            MissingExtraError: torch is not installed.
        """
        return similarity(self.similarity_fn_name, embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> "Tensor":
        """Return the similarity of embeddings with the same position, a tensor `(n,)`; see `similarity`."""
        return similarity_pairwise(self.similarity_fn_name, embeddings1, embeddings2)

    @property
    def similarity_fn_name(self) -> SimilarityName:
        """Name of the function of `similarity`."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: str) -> None:
        chosen = choice(Similarity, "similarity_fn_name", getattr(name, "value", name))
        self._similarity_fn_name: SimilarityName = chosen.value

    def get_embedding_dimension(self) -> int:
        """Return the number of values of an embedding of `encode`."""
        size = self._full_dimension
        return size if self.truncate_dim is None else min(size, self.truncate_dim)

    get_sentence_embedding_dimension = get_embedding_dimension

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Let `encode` return this number of leading values in a `with` block; None: all."""
        before, self.truncate_dim = self.truncate_dim, truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    truncate_sentence_embeddings = truncate_embeddings

    def encode_multi_process(
        self,
        sentences: Inputs,
        pool: object,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        chunk_size: int | None = None,
        show_progress_bar: bool | None = None,
        precision: EmbeddingPrecision = "float32",
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> NDArray[Any]:
        """Return what `encode` returns: this process already uses all cores, or all GPUs that it was given."""
        return self.encode(
            sentences,
            prompt_name,
            prompt,
            batch_size,
            show_progress_bar,
            precision=precision,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pool=pool,
            chunk_size=chunk_size,
        )

    @property
    def _full_dimension(self) -> int:
        return int(self.encort_model.variant.outputs[SENTENCE_EMBEDDING][-1])

    def _first_prompt(self, name: str | None, prompt: str | None, candidates: Sequence[str]) -> str | None:
        if name is not None or prompt is not None:
            return name
        return next((candidate for candidate in candidates if candidate in self.prompts), None)

    def _embed(self, texts: Sequence[Text], prompt: str, *, show: bool | None) -> FloatArray:
        """Return float32 embeddings with all values, so that truncation follows sentence-transformers."""
        options: dict[str, Any] = {"prompt": Prompt(prompt), "dimensions": self._full_dimension}
        with self._shared.use() as model:
            parts = self._with_bar(lambda part: model.embed(part, **options), texts, show=show)
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def _encode_tokens(self, texts: Sequence[Text], prompt: str, output_value: str | None, *, size: int | None) -> Any:
        """Return a tensor, or with None a dict of tensors, for each text."""
        if output_value is not None:
            check_choice("output_value", output_value, get_args(OutputValue))
        torch = torch_for("an output_value other than sentence_embedding")
        with self._shared.use() as model:
            batch = model.tokenize(texts, prompt=Prompt(prompt))
            states = model.embed_tokens(batch)
            if output_value is None:
                return token_features(batch, states, model.embed(batch, dimensions=self._full_dimension)[:, :size])
        return [torch.from_numpy(state) for state in states]
