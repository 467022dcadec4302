"""`CrossEncoder`: scores of pairs of texts by a bundle, with the signatures of sentence-transformers 6."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from encort.integrations.sentence_transformers.bundle_model import BundleModel
from encort.integrations.sentence_transformers.inputs import as_texts, is_single_pair, renamed, without_arrays
from encort.integrations.sentence_transformers.outputs import converted
from encort.integrations.sentence_transformers.tensors import torch_for
from encort.runtime.bundle.manifest import Activation, HeadInfo, Task
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import InputError, WrongTaskError
from encort.runtime.model import Model
from encort.runtime.tasks.classification import ACTIVATIONS, softmax
from encort.runtime.tasks.specs import CLASSIFIERS

if TYPE_CHECKING:
    from torch import Tensor

ActivationFn = Callable[["Tensor"], "Tensor"]
_IN_TORCH = {
    Activation.IDENTITY: "Identity",
    Activation.SIGMOID: "Sigmoid",
    Activation.TANH: "Tanh",
    Activation.SOFTMAX: "Softmax",
}
"""Classes of torch by the activation."""


class CrossEncoder(BundleModel):
    """A bundle with a head for texts, as a `CrossEncoder`.

    >>> model = CrossEncoder("reranker.bundle")  # doctest: +SKIP
    >>> model.rank("Where is my card?", ["It is in the post.", "A PIN has four digits."])
    """

    _STANDS_FOR = "CrossEncoder"
    _ORGANIZATION = "cross-encoder"

    @renamed(
        model_name="model_name_or_path",
        automodel_args="model_kwargs",
        tokenizer_args="processor_kwargs",
        tokenizer_kwargs="processor_kwargs",
        config_args="config_kwargs",
        cache_dir="cache_folder",
        default_activation_function="activation_fn",
    )
    def __init__(
        self,
        model_name_or_path: str | Path | Model | None = None,
        *,
        modules: object = None,
        device: Any = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | None = None,  # noqa: ARG002 - nothing is downloaded
        trust_remote_code: bool = False,  # noqa: ARG002 - a bundle has no code
        revision: str | None = None,
        local_files_only: bool = False,  # noqa: ARG002
        token: bool | str | None = None,  # noqa: ARG002
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        model_card_data: object = None,
        backend: str = "torch",  # noqa: ARG002 - it is ONNX Runtime
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: ActivationFn | None = None,
    ) -> None:
        """Open a bundle, or take an open model.

        Args:
            model_name_or_path: Folder of a bundle, or `hf://org/name` of one on the hub; or, for its other options,
                what `encort.load` returned.
            modules: Refused, as `model_kwargs`, `processor_kwargs` and `config_kwargs` are, which change the model.
            device: Device of the bundle, or a list of GPUs; None: as `encort.load`.
            prompts: Prompts by name, which are put before the first text of a pair.
            default_prompt_name: Prompt for calls that name none.
            cache_folder: Without effect, as all options for downloads, and `backend`.
            num_labels: Number of labels of the bundle, which is checked.
            max_length: Most tokens of a pair; None: as many as the bundle reads.
            activation_fn: Function of torch for the logits; None: that of the bundle, without torch.

        Raises:
            BundleError: It is no bundle, or one that cannot be used.
            WrongTaskError: The bundle has no head for texts.
            InputError: A bundle cannot follow an option.
        """
        super().__init__(
            model_name_or_path,
            device=device,
            prompts=prompts,
            default_prompt_name=default_prompt_name,
            max_length=max_length,
            modules=modules,
            revision=revision,
            model_kwargs=model_kwargs,
            processor_kwargs=processor_kwargs,
            config_kwargs=config_kwargs,
        )
        if model_card_data is not None:
            self.model_card_data = model_card_data
        self._activation_fn = activation_fn
        if num_labels not in (None, self.num_labels):
            raise InputError(f"the bundle has num_labels {self.num_labels}, not {num_labels}; leave num_labels out")

    @overload
    def predict(
        self,
        inputs: Sequence[Any] | NDArray[Any],
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        activation_fn: ActivationFn | None = ...,
        apply_softmax: bool | None = ...,
        convert_to_numpy: Literal[True] = ...,
        convert_to_tensor: Literal[False] = ...,
        device: Any = ...,
        pool: object = ...,
        chunk_size: int | None = ...,
    ) -> NDArray[np.float32]: ...
    @overload
    def predict(
        self,
        inputs: Sequence[Any] | NDArray[Any],
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        activation_fn: ActivationFn | None = ...,
        apply_softmax: bool | None = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: bool = ...,
        device: Any = ...,
        pool: object = ...,
        chunk_size: int | None = ...,
    ) -> Any: ...
    @renamed("num_workers", sentences="inputs", activation_fct="activation_fn")
    def predict(
        self,
        inputs: Sequence[Any] | NDArray[Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: ActivationFn | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        pool: object = None,  # noqa: ARG002 - see start_multi_process_pool
        chunk_size: int | None = None,  # noqa: ARG002
    ) -> Any:
        """Return one score per pair, `(n,)` float32, or with several labels `(n, labels)`; of one pair, one row.

        Args:
            inputs: One pair of texts, or many.
            prompt_name: Name of the prompt that is put before the first text of each pair.
            prompt: Text of the prompt; it comes before `prompt_name`.
            batch_size: Checked, and without effect: encort chooses the pairs that it runs together by their lengths.
            show_progress_bar: Whether to show a progress bar. It needs tqdm.
            activation_fn: Function of torch for the logits; None: that of the model.
            apply_softmax: Whether the scores of several labels are made probabilities that sum to 1.
            convert_to_numpy: Whether to return an array. If not, it is a list of tensors.
            convert_to_tensor: Whether to return one tensor.
            device: Device that the bundle is moved to, or a list of GPUs.
            pool: Without effect, as `chunk_size`: the process uses all cores, or all GPUs that it was given.
            chunk_size: See `pool`.

        Raises:
            InputError: An input or an option cannot be used.
            MissingExtraError: A result is a tensor, or there is an `activation_fn`, and torch is not installed.
        """
        self._prepare_call(batch_size, device, {})
        inputs = without_arrays(inputs)
        is_single = is_single_pair(inputs)
        pairs = as_texts([inputs] if is_single else inputs, self._resolve_prompt(prompt, prompt_name))
        with self._shared.use() as model:
            parts = self._with_bar(model.logits, pairs, show=show_progress_bar)
        scores = self._activated(np.concatenate(parts), activation_fn or self._activation_fn)
        if apply_softmax and scores.ndim > 1:
            scores = softmax(scores)
        results = converted(scores, lambda: self.device, as_tensor=convert_to_tensor, as_array=convert_to_numpy)
        return results[0] if is_single else results

    @renamed("num_workers", "apply_softmax", "convert_to_numpy", "convert_to_tensor", activation_fct="activation_fn")
    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: ActivationFn | None = None,
        device: Any = None,
        pool: object = None,  # noqa: ARG002 - see start_multi_process_pool
        chunk_size: int | None = None,  # noqa: ARG002
    ) -> list[dict[Literal["corpus_id", "score", "text"], Any]]:
        """Return the documents of a query, the best first, each with `corpus_id`, `score` and, if asked for, `text`.

        Args:
            query: First text of each pair.
            documents: Second texts.
            top_k: Most documents to return; None: all.
            return_documents: Whether to return the texts of the documents.
            prompt_name: See `predict`, as for the arguments after it.

        Raises:
            InputError: The model has several labels, or see `predict`.
        """
        if self.num_labels != 1:
            raise InputError(f"rank needs a model with num_labels 1, this one has {self.num_labels}; use predict")
        scores = self.predict(
            [(query, document) for document in documents],
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            activation_fn=activation_fn,
            device=device,
        ).tolist()
        order = sorted(range(len(scores)), key=lambda index: -scores[index])[:top_k]
        return [
            {"corpus_id": index, "score": scores[index], **({"text": documents[index]} if return_documents else {})}
            for index in order
        ]

    @property
    def num_labels(self) -> int:
        """Number of columns of the logits."""
        return len(self._head.labels)

    @property
    def model(self) -> Any:
        """Return `transformers_model`, by its name in sentence-transformers."""
        return self.transformers_model

    @property
    def max_length(self) -> int:
        """Most tokens of a pair: the older name of `max_seq_length`."""
        return self.max_seq_length

    @max_length.setter
    def max_length(self, tokens: int) -> None:
        self.max_seq_length = tokens

    @property
    def activation_fn(self) -> Any:
        """Function of torch that is applied to the logits."""
        if self._activation_fn is None:
            return getattr(torch_for("the activation of a model").nn, _IN_TORCH[self._own_activation])()
        return self._activation_fn

    @activation_fn.setter
    def activation_fn(self, function: ActivationFn | None) -> None:
        self._activation_fn = function

    default_activation_function = activation_fn

    @property
    def _head(self) -> HeadInfo:
        try:
            return self.encort_model.head(None, Task.TEXT_REGRESSION, *CLASSIFIERS)
        except WrongTaskError as error:
            raise WrongTaskError(f"{error}; SentenceTransformer gives the embeddings of a bundle") from error

    @property
    def _own_activation(self) -> Activation:
        """Activation of the checkpoint, or that of sentence-transformers for checkpoints that name none."""
        default = Activation.SIGMOID if self.num_labels == 1 else Activation.IDENTITY
        return self._head.activation or default

    def _activated(self, logits: FloatArray, function: ActivationFn | None) -> FloatArray:
        """Return the scores of logits: `(n,)` of one label, `(n, labels)` of several."""
        if function is None:
            scores = ACTIVATIONS[self._own_activation](logits)
        else:
            tensor = torch_for("the argument of activation_fn").from_numpy(logits)
            scores = function(tensor).float().cpu().numpy()
        return scores[:, 0] if logits.shape[1] == 1 and scores.ndim > 1 else scores
