"""`Reloader`: another bundle under the name of a served model, without a gap."""

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from encort.runtime.common.errors import EncortError
from encort.runtime.server.models import ModelRegistry, ServedModel
from encort.runtime.server.operations.proof import describe_proof, open_prepared
from encort.runtime.server.operations.shared import SharedFolder

_LOG = logging.getLogger("encort.server")


class Reloader:
    """Replaces models. One reload runs at a time, and a bundle that fails leaves the model before in service."""

    def __init__(
        self,
        registry: ModelRegistry,
        sources: Mapping[str, str | Path],
        shared: SharedFolder | None,
        *,
        with_reference: bool,
    ) -> None:
        """Replace the models of a registry.

        Args:
            registry: The served models.
            sources: The bundle of each model.
            shared: Tells the other processes of the server; None: there are none.
            with_reference: See `prepare`.
        """
        self._registry, self._sources = registry, dict(sources)
        self._shared, self._with_reference = shared, with_reference
        self._lock = asyncio.Lock()

    async def reload(self, name: str, bundle: str | Path | None = None) -> ServedModel:
        """Load a bundle, prove it, warm it up, give it the new requests, and close the model before when it is done.

        Args:
            name: Name or alias of the model.
            bundle: The new bundle; None: the one before, which may have changed.

        Returns:
            The new model.

        Raises:
            RequestError: There is no such model.
            EncortError: The bundle cannot be loaded, or does not pass. The model before goes on.
        """
        async with self._lock:
            served = self._registry.get(name)
            source = self._sources[served.name] if bundle is None else bundle
            prepared = await asyncio.to_thread(
                open_prepared, source, served.model.options, with_reference=self._with_reference
            )
            try:
                before = await self._registry.replace(served.name, prepared)
            except EncortError:
                prepared.model.close()
                raise
            self._sources[served.name] = source
            if before is not None:
                await asyncio.to_thread(before.model.close)
            variant, proof = prepared.model.variant.name, describe_proof(prepared.proof)
            _LOG.info("%s: %s serves, variant %s, %s", served.name, source, variant, proof)
            return self._registry.get(name)

    async def reload_everywhere(self, name: str, bundle: str | Path | None = None) -> ServedModel:
        """Reload a model here, then in the other processes of the server; see `reload`."""
        served = await self.reload(name, bundle)
        if self._shared is not None:
            self._shared.save_bundles({**self._shared.bundles(), served.name: str(self._sources[served.name])})
            os.kill(os.getppid(), signal.SIGHUP)  # the supervisor sends it to all
        return served

    async def reload_all(self) -> None:
        """Reload every model. Failures are logged."""
        bundles = {**self._sources, **({} if self._shared is None else self._shared.bundles())}
        for name, bundle in bundles.items():
            try:
                await self.reload(name, bundle)
            except (EncortError, OSError) as error:
                _LOG.warning("%s was not reloaded, the model before serves on: %s", name, error)
