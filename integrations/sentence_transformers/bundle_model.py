"""`BundleModel`: what `SentenceTransformer` and `CrossEncoder` share."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from encort.integrations.sentence_transformers.opened_bundle import NO_CAST
from encort.integrations.sentence_transformers.opening import check_options, merge_prompts
from encort.integrations.sentence_transformers.tensors import EXTRA
from encort.integrations.sentence_transformers.transformers_parts import TransformersParts
from encort.runtime.common.checks import check_whole
from encort.runtime.common.errors import InputError, InputTypeError
from encort.runtime.common.extras import require
from encort.runtime.model import Model
from encort.runtime.text.token_prompt import prompt_text

Kind = TypeVar("Kind", bound="BundleModel")
Results = TypeVar("Results")

_BAR_STEP = 256
"""Texts between two moves of a progress bar."""
_NO_MODULES = (
    "a bundle has no modules of PyTorch; the model itself has max_seq_length, tokenizer, similarity_fn_name and "
    "get_embedding_dimension(), and model.encort_model.manifest the pooling; to change modules, use "
    "sentence_transformers, and export the result with `encort export`"
)
_MISSING = {
    **dict.fromkeys(
        ("modules", "children", "named_modules", "named_children", "append", "insert", "extend", "pop"),
        _NO_MODULES,
    ),
    **dict.fromkeys(
        ("train", "fit", "old_fit", "parameters", "named_parameters", "state_dict", "forward", "compile"),
        "a bundle has no modules of PyTorch; use sentence_transformers, or `encort train`, and export the result",
    ),
    **dict.fromkeys(
        ("save", "save_pretrained", "save_to_hub", "push_to_hub"),
        "a bundle is complete on disk: copy its folder, or upload it with `encort push`",
    ),
    "set_pooling_include_prompt": "the exported folder says whether prompts are pooled; change it, and export it again",
    **dict.fromkeys(
        ("half", "float", "double", "bfloat16", "quantize"),
        NO_CAST,
    ),
}
"""Methods of sentence-transformers that a bundle cannot have, and what to do instead."""


class BundleModel(TransformersParts):
    """A loaded bundle with the attributes that both kinds of model have in sentence-transformers.

    `isinstance` takes it for a model of sentence-transformers, because other libraries check that before they use one.
    It is as safe for threads as `encort.Model`, except for the setters.

    Attributes:
        prompts: Prompts by name. They may be changed.
        default_prompt_name: Name of the prompt that is used if a call names none.
    """

    _ORGANIZATION: ClassVar[str]
    _PROMPTS: ClassVar[Mapping[str, str | None]] = {}
    backend = "onnx"

    def __init__(
        self,
        model: str | Path | Model | None,
        *,
        device: object,
        prompts: Mapping[str, str] | None,
        default_prompt_name: str | None,
        revision: str | None,
        max_length: int | None = None,
        **options: object,
    ) -> None:
        """Open a bundle, or take an open model.

        Args:
            model: Folder of a bundle, `hf://org/name` of one on the hub, or what `encort.load` returned.
            device: Device of the bundle; None: as `encort.load`.
            prompts: Prompts by name, in place of those of the bundle with the same name.
            default_prompt_name: See the attribute; None: that of the bundle.
            revision: Revision of a bundle on the hub.
            max_length: Most tokens of an input; None: as many as the bundle reads.
            options: Options of sentence-transformers for models of PyTorch.

        Raises:
            BundleError: It is no bundle, or one that cannot be used.
            InputError: A bundle cannot follow an option.
        """
        check_options(options)
        super().__init__(
            model, device=device, max_length=max_length, revision=revision, organization=self._ORGANIZATION
        )
        stored = self.encort_model.manifest.prompts
        texts = {name: prompt_text(text) for name, text in stored.texts.items()}
        self.prompts = merge_prompts(self._PROMPTS, prompts, texts)
        self.default_prompt_name = default_prompt_name or stored.default
        self._resolve_prompt(None, None)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        # Libraries such as MTEB and BERTopic ask isinstance(model, sentence_transformers.SentenceTransformer).
        library = sys.modules.get("sentence_transformers")
        return getattr(library, self._STANDS_FOR, type(self))

    def __reduce__(self) -> tuple[Callable[..., "BundleModel"], tuple[type, dict[str, Any]]]:
        # By default, pickle refuses an object whose __class__ is not its type.
        return _restored, (type(self), self.__dict__.copy())

    if not TYPE_CHECKING:  # a type checker would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            what_to_do = _MISSING.get(name, "docs/moving-over/sentence-transformers.md of encort lists what there is")
            raise AttributeError(f"{type(self).__name__} of encort has no {name}: {what_to_do}")

    def __getitem__(self, index: object) -> Any:
        """Refuse `model[0]`, the first module in sentence-transformers."""
        raise InputTypeError(f"{type(self).__name__} of encort has no model[{index!r}]: {_NO_MODULES}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.encort_model.bundle.folder}, {self.encort_model.variant.name})"

    def _resolve_prompt(self, prompt: str | None, prompt_name: str | None) -> str:
        """Return the text of a prompt: the given one, the named one, or the default one.

        Raises:
            InputError: There is no prompt with this name.
        """
        if prompt is not None:
            return prompt
        name = self.default_prompt_name if prompt_name is None else prompt_name
        if name is None:
            return ""
        if name not in self.prompts:
            raise InputError(f"there is no prompt {name!r}; the model has: {', '.join(self.prompts) or 'none'}")
        return self.prompts[name]

    def _prepare_call(self, batch_size: int, device: object, options: Mapping[str, object]) -> None:
        """Check the options of a call that have no effect on its results, and move the model to its device."""
        check_whole("batch_size", batch_size, least=1)
        unknown = [name for name in options if name != "task"]
        if unknown:
            raise InputError(
                f"unknown options: {', '.join(unknown)}; the models of encort take no options of their own"
            )
        if device is not None:
            self.to(device)

    def _with_bar(
        self, run: Callable[[Sequence[Any]], Results], inputs: Sequence[Any], *, show: bool | None
    ) -> list[Results]:
        """Return the results of all inputs, in parts if a progress bar is shown."""
        if not show:
            return [run(inputs)]
        require("show_progress_bar=True", EXTRA, "tqdm")
        bar = import_module("tqdm.auto").tqdm(total=len(inputs), desc="Texts")
        parts = []
        with bar:
            for start in range(0, max(len(inputs), 1), _BAR_STEP):  # no inputs are one empty part
                part = inputs[start : start + _BAR_STEP]
                parts.append(run(part))
                bar.update(len(part))
        return parts

    def evaluate(self, evaluator: Callable[..., Any], output_path: str | None = None) -> Any:
        """Return what an evaluator of sentence-transformers says about the model."""
        if output_path is not None:
            Path(output_path).mkdir(parents=True, exist_ok=True)
        return evaluator(self, output_path)

    modalities: ClassVar[list[str]] = ["text"]

    def supports(self, modality: object) -> bool:
        """Return whether the model reads a kind of input: `text` alone."""
        return modality in self.modalities

    def get_backend(self) -> str:
        """Return `onnx`."""
        return self.backend

    def get_model_kwargs(self) -> list[str]:
        """Return the options of the model's own for `encode` and `predict`: none."""
        return []


def _restored(kind: type[Kind], state: Mapping[str, Any]) -> Kind:
    model = object.__new__(kind)
    model.__dict__.update(state)
    return model
