"""`ModelRegistry`: the models that a server serves, by name and alias."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from encort.runtime.common.errors import InputError
from encort.runtime.model import Model
from encort.runtime.server.errors import Failure, RequestError
from encort.runtime.server.operations.drift import Drift, DriftShadow
from encort.runtime.server.operations.proof import Prepared
from encort.runtime.server.settings import ServerSettings
from encort.runtime.serving.async_service import SpecService
from encort.runtime.verification.golden import GoldenCheck


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedModel:
    """A model that is ready for requests.

    Attributes:
        name: Name in requests and results.
        model: The loaded bundle.
        service: Runs the texts of all requests.
        max_tokens: Most tokens of a request.
        proof: What the golden vectors showed; None if they were not checked.
        shadow: Compares some results with fp32.
        part_texts: Texts of a request that are queued together; two such parts fill at most the queue.
        closing: Waits for the requests of the service, when it is closed.
    """

    name: str
    model: Model
    service: SpecService
    max_tokens: int
    part_texts: int
    proof: GoldenCheck | None
    shadow: DriftShadow | None
    closing: contextlib.AsyncExitStack = field(repr=False)


class ModelRegistry:
    """Models by name. A request keeps the model that it got, also while another one replaces it."""

    def __init__(
        self,
        models: Mapping[str, Prepared],
        aliases: Mapping[str, str],
        settings: ServerSettings,
        observe_drift: Callable[[str, Drift], None],
    ) -> None:
        """Name the models; the first is the default.

        Args:
            models: Models by name.
            aliases: Names of models by other names for them.
            settings: Options of their queues.
            observe_drift: Gets the name of a model, and the difference of a text to fp32.

        Raises:
            InputError: There is no model, or an alias is a model's name or names no model.
        """
        if not models:
            raise InputError("there is no model to serve; give at least one bundle")
        for alias, name in aliases.items():
            if alias in models or name not in models:
                raise InputError(f"alias {alias!r} must be a new name of one of {', '.join(models)}, got {name!r}")
        self._prepared, self._aliases, self._settings = dict(models), dict(aliases), settings
        self._loaded = {name: prepared.model for name, prepared in models.items()}
        self._observe_drift = observe_drift
        self._served: dict[str, ServedModel] = {}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._served.values())

    @property
    def is_ready(self) -> bool:
        """Whether every model takes requests."""
        return len(self._served) == len(self._loaded)

    @property
    def loaded(self) -> Mapping[str, Model]:
        """The models by name, as they are now."""
        return MappingProxyType(self._loaded)

    def name_of(self, name: str | None) -> str:
        """Return the name that a name or alias stands for, the first one for none; empty if there is no such model."""
        chosen = next(iter(self._loaded)) if name is None else self._aliases.get(name, name)
        return chosen if chosen in self._loaded else ""

    def proof(self, name: str) -> GoldenCheck | None:
        """Return what the golden vectors of a model showed."""
        return self._prepared[name].proof

    @property
    def names(self) -> Iterable[str]:
        """Names and aliases of the models."""
        return [*self._loaded, *self._aliases]

    def get(self, name: str | None = None) -> ServedModel:
        """Return the model with a name or alias; the first one without a name.

        Raises:
            RequestError: There is no such model, or it is not ready.
        """
        chosen = next(iter(self._loaded)) if name is None else self._aliases.get(name, name)
        if chosen in self._served:
            return self._served[chosen]
        if chosen in self._loaded:
            raise RequestError(Failure.UNHEALTHY, f"model {chosen!r} is not ready; try again later")
        raise RequestError(Failure.UNKNOWN_MODEL, f"there is no model {name!r}; it is one of {', '.join(self.names)}")

    async def open(self) -> None:
        """Take requests for all models."""
        for name, prepared in list(self._prepared.items()):
            await self.replace(name, prepared)

    async def replace(self, name: str, prepared: Prepared) -> ServedModel | None:
        """Give new requests to a loaded model, then wait for the requests of the one before.

        Args:
            name: Name of the model.
            prepared: The model, and its reference, which is closed with its last request.

        Returns:
            The model before, which the caller may close.
        """
        closing, settings, model = contextlib.AsyncExitStack(), self._settings, prepared.model
        shadow = await self._open_shadow(name, prepared, closing)
        context = model.serving(max_wait_ms=settings.max_wait_ms, queue_tokens=settings.queue_tokens)
        service = await closing.enter_async_context(context)
        assert isinstance(service, SpecService), "model.serving() gives it"
        before = self._served.get(name)
        self._prepared[name], self._loaded[name] = prepared, model
        self._served[name] = ServedModel(
            name=name,
            model=model,
            service=service,
            max_tokens=settings.max_tokens,
            part_texts=max(1, settings.queue_tokens // (2 * model.manifest.max_length)),
            proof=prepared.proof,
            shadow=shadow,
            closing=closing,
        )
        if before is not None:
            await before.closing.aclose()
        return before

    async def _open_shadow(
        self, name: str, prepared: Prepared, closing: contextlib.AsyncExitStack
    ) -> DriftShadow | None:
        if prepared.reference is None:
            return None
        closing.callback(prepared.close_reference)
        reference = await closing.enter_async_context(prepared.reference.serving())
        assert isinstance(reference, SpecService), "model.serving() gives it"
        shadow = DriftShadow(
            reference,
            share=self._settings.drift_share,
            most_time=self._settings.drift_most_time,
            observe=functools.partial(self._observe_drift, name),
        )
        closing.push_async_callback(shadow.close)
        return shadow

    async def close(self) -> None:
        """Take no more requests, and wait for those that were accepted."""
        served, self._served = list(self._served.values()), {}
        for model in served:
            await model.closing.aclose()
