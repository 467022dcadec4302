"""The model behind an adapter: it opens at its first use and has one queue for the texts of all callers."""

import asyncio
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import TracebackType
from typing import Any, Self, TypedDict

from encort.runtime.bundle.manifest import Manifest, Precision
from encort.runtime.common.errors import InputError, InputTypeError
from encort.runtime.common.forks import new_lock
from encort.runtime.hub.download import open_bundle
from encort.runtime.model import Model, load
from encort.runtime.options import DeviceName, LoadOptions, PrecisionName
from encort.runtime.serving.async_service import AsyncService
from encort.runtime.serving.service import Service, ServiceContext
from encort.runtime.tasks.results import Ranked

BundleOrModel = str | os.PathLike[str] | Model
"""The folder of a bundle or its name on the hub, or a loaded model."""

_QUEUE_TOKENS = 2**62
"""The queue has no limit: the frameworks have no word for a full queue, and they hold all texts in memory anyway."""

_PLANNED = "encort plans the runs of all callers by itself; leave it out"
_PROMPTS = 'name one of the bundle\'s prompts with query_prompt= or document_prompt=, or give encort.Prompt("query: ")'
_HUB = "huggingface_hub takes it from the environment: HF_TOKEN, HF_HOME"
_NORMALIZED = "the bundle says so; make another with: encort export --normalize or --no-normalize"
_INSTEAD = {
    **dict.fromkeys(("model", "model_name", "model_name_or_path"), "give the folder of a bundle as the first argument"),
    **dict.fromkeys(("batch_size", "show_progress", "progress_bar", "multi_process"), _PLANNED),
    **dict.fromkeys(("prefix", "suffix", "query_instruction", "text_instruction", "query_encode_kwargs"), _PROMPTS),
    **dict.fromkeys(("cache_folder", "token"), _HUB),
    **dict.fromkeys(("normalize", "normalize_embeddings"), _NORMALIZED),
    "encode_kwargs": "the bundle says how texts are pooled and normalized, and encort plans the runs; leave it out",
    "model_kwargs": "give device=, precision= and threads= themselves",
    "revision": 'it is a part of the name: "hf://org/name@revision"',
    "trust_remote_code": "a bundle has no code that could run; leave it out",
    "truncate_dim": "give dimensions=",
}
"""Advice for options that other adapters of the frameworks have, and these do not."""


class LoadKeywords(TypedDict, total=False):
    """Options of `encort.load`, which every adapter takes; see there."""

    device: DeviceName | Sequence[DeviceName]
    precision: PrecisionName | Precision
    threads: int | None
    max_length: int | None
    spinning: bool
    provider: str | None
    provider_options: Mapping[str, str]


@dataclass(frozen=True)
class _Opened:
    """An open model with its queue."""

    model: Model
    context: ServiceContext
    service: Service


class LazyModel:
    """A model that is opened at its first use, for any number of threads and event loops.

    `close` releases it, and a later use opens it again. Pickling keeps its name and the options. A forked child opens
    it again too, also a loaded model that was given: the threads of the parent's model do not exist there.

    Attributes:
        bundle: Folder of the bundle, or its name on the hub, as it was given; of a loaded model, those of its bundle.
    """

    def __init__(self, bundle: BundleOrModel, options: Mapping[str, Any]) -> None:
        """Check the options; nothing is opened yet.

        Args:
            bundle: Folder of a bundle or `"hf://org/name@revision"`; or a loaded model, which stays open when this is
                closed.
            options: Options of `encort.load`.

        Raises:
            InputTypeError: There is no such option, or the bundle is neither a path nor a model.
            InputError: An option has no such value, or comes with a loaded model.
        """
        self._given = bundle if isinstance(bundle, Model) else None
        if isinstance(bundle, Model):
            if options:
                raise InputError(
                    f"give {', '.join(options)} to encort.load, or the folder of the bundle in place of a model"
                )
            self.bundle, self._options = bundle.bundle.source, bundle.options
        elif isinstance(bundle, str | os.PathLike):
            self.bundle, self._options = os.fspath(bundle), _checked(options)
        else:
            raise InputTypeError(f"expected the folder of a bundle or a model of encort.load, got {bundle!r}")
        self._lock = new_lock()
        self._opened: _Opened | None = None
        self._process = os.getpid()

    @property
    def options(self) -> dict[str, Any]:
        """The options of `encort.load` that differ from the defaults, as JSON holds them."""
        defaults = asdict(LoadOptions())
        given = {name: value for name, value in asdict(self._options).items() if value != defaults[name]}
        plain: dict[str, Any] = json.loads(json.dumps(given))
        return plain

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle, which is read without opening the model."""
        opened = self._opened
        model = self._given if opened is None else opened.model
        return open_bundle(self.bundle, files=lambda _: []).manifest if model is None else model.manifest

    def open(self) -> Model:
        """Return the open model.

        Raises:
            BundleError: The folder is not a usable bundle.
            HubError: The hub does not give the bundle.
            DeviceError: The device is not available.
        """
        return self._open().model

    async def open_async(self) -> Model:
        """Return the open model. It is opened in a thread, so that the event loop goes on."""
        return (await self._open_async()).model

    def service(self) -> Service:
        """Return the service for threads: single texts of concurrent callers share runs."""
        return self._open().service

    async def service_async(self) -> AsyncService:
        """Return the service for asyncio. It has the queue of `service`, in whichever event loop it is used."""
        opened = await self._open_async()
        return await opened.context.__aenter__()  # makes an AsyncService, and nothing that has to be left

    async def rank_async(self, query: str, documents: Sequence[str], *, top_k: int | None) -> Sequence[Ranked]:
        """Return what `Model.rank` returns, computed in a thread."""
        model = await self.open_async()
        return await asyncio.to_thread(model.rank, query, documents, top_k=top_k)

    def close(self) -> None:
        """Finish the texts in progress and release the model, unless the caller loaded it. Closing twice is fine."""
        with self._lock:
            self._forget_parent()
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.context.__exit__(None, None, None)
            if opened.model is not self._given:
                opened.model.close()

    def _open(self) -> _Opened:
        with self._lock:
            self._forget_parent()
            if self._opened is None:
                model = self._given or load(self.bundle, **asdict(self._options))
                context = model.serving(queue_tokens=_QUEUE_TOKENS)
                self._opened = _Opened(model, context, context.__enter__())
            return self._opened

    async def _open_async(self) -> _Opened:
        opened = self._opened
        if opened is None or os.getpid() != self._process:
            return await asyncio.to_thread(self._open)
        return opened

    def _forget_parent(self) -> None:
        """In a forked child, forget the models of the parent, which cannot work there."""
        if os.getpid() != self._process:
            self._process, self._given, self._opened = os.getpid(), None, None

    def __reduce__(self) -> tuple[Callable[..., "LazyModel"], tuple[str, dict[str, Any]]]:
        return LazyModel, (self.bundle, self.options)


def shared_model(bundle: BundleOrModel, options: Mapping[str, Any]) -> LazyModel:
    """Return the lazy model that all callers of this process with the same folder and the same options share.

    Raises:
        InputError: See `LazyModel`.
    """
    model = LazyModel(bundle, options)
    return model if isinstance(bundle, Model) else _shared_model(model.bundle, json.dumps(model.options))


@functools.cache
def _shared_model(bundle: str, options: str) -> LazyModel:
    return LazyModel(bundle, json.loads(options))


class ModelOwner:
    """An adapter that owns a `LazyModel`: `close` it, or use it as a context manager."""

    _model: LazyModel

    def close(self) -> None:
        """Finish the texts in progress and release the model; a later use opens it again.

        A model that was loaded with `encort.load` stays open.
        """
        self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _checked(options: Mapping[str, Any]) -> LoadOptions:
    """Return options of `encort.load`, or refuse an option that it does not have."""
    names = [field.name for field in fields(LoadOptions)]
    for name in options:
        if name not in names:
            instead = _INSTEAD.get(name, f"it passes these on to encort.load: {', '.join(names)}")
            raise InputTypeError(f"there is no option {name}: {instead}")
    return LoadOptions(**options)
