"""`app`: the ASGI application."""

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from encort.runtime.model import Model
from encort.runtime.server.endpoints import TIMEOUT_HEADER, Endpoint, EndpointApp, Server, error_response, json_response
from encort.runtime.server.errors import OPEN_INFERENCE, OPENAI, TEI, Contract, Failure, RequestError
from encort.runtime.server.models import ModelRegistry
from encort.runtime.server.openapi import describe
from encort.runtime.server.operations import admin
from encort.runtime.server.operations.metrics import Metrics
from encort.runtime.server.operations.monitor import Monitor
from encort.runtime.server.operations.proof import prepare
from encort.runtime.server.operations.reload import Reloader
from encort.runtime.server.operations.shared import SAVE_S, SharedFolder, SummedStats
from encort.runtime.server.page import PAGE_FILES, SECURITY_HEADERS
from encort.runtime.server.routes import info, openai, rerank, tasks, tei, tei_ranking, tei_tokens
from encort.runtime.server.routes.open_inference import endpoints as open_inference
from encort.runtime.server.settings import ServerSettings

ENDPOINTS: Sequence[Endpoint] = [
    *tei.ENDPOINTS,
    *tei_ranking.ENDPOINTS,
    *tei_tokens.ENDPOINTS,
    *info.ENDPOINTS,
    *openai.ENDPOINTS,
    *rerank.ENDPOINTS,
    *tasks.ENDPOINTS,
    *open_inference.ENDPOINTS,
]
PUBLIC = frozenset({"/health", "/ping", "/v2/health/live", "/v2/health/ready", "/metrics", "/docs", "/openapi.json"})
"""Paths that need no API key."""


def app(
    models: Mapping[str, Model],
    *,
    aliases: Mapping[str, str] | None = None,
    settings: ServerSettings | None = None,
    sources: Mapping[str, str | Path] | None = None,
) -> Starlette:
    """Return an ASGI application that serves models. It takes requests between its startup and its shutdown.

    The golden vectors of each model are checked first, on the variant that will serve.

    Args:
        models: Loaded models by name; the first is that of requests without a name. The caller closes them.
            The application closes the models that replace them.
        aliases: Names of models by other names for them.
        settings: Options of the server.
        sources: The bundle of each model, which a reload opens; None: the folder or hub name that it was loaded from.

    Raises:
        InputError: There is no model, or an alias is no alias of one.
        FidelityError: A model does not give its golden vectors on this machine.
    """
    settings = settings or ServerSettings()
    shared = None if settings.shared_folder is None else SharedFolder(settings.shared_folder)
    compares = settings.drift_share > 0
    registry = ModelRegistry(
        {name: prepare(model, with_reference=compares) for name, model in models.items()},
        aliases or {},
        settings,
        lambda name, drift: metrics.count_drift(name, drift),  # noqa: PLW0108 - metrics are made after it
    )
    server = Server(models=registry, settings=settings, shared=shared)
    bundles = {name: model.bundle.source for name, model in models.items()} | dict(sources or {})
    reloader = Reloader(registry, bundles, shared, with_reference=compares)
    running = [path for endpoint in ENDPOINTS if endpoint.body is not None for path in endpoint.paths]
    stats = registry.loaded if shared is None else SummedStats(registry.loaded, shared)
    metrics = Metrics(stats, running, te_names=settings.te_metrics)
    description = describe([*ENDPOINTS, *([admin.DESCRIPTION] if settings.admin_keys else [])])

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await registry.open()
        saving = asyncio.ensure_future(_save(stats, registry)) if isinstance(stats, SummedStats) else None
        try:
            yield
        finally:
            if saving is not None:
                saving.cancel()
            await registry.close()
            await asyncio.to_thread(_close_others, registry, models)

    routes: list[BaseRoute] = [
        Route(path, _application(server, endpoint, path), methods=[endpoint.method])
        for endpoint in ENDPOINTS
        for path in endpoint.paths
    ]
    routes.append(Route("/openapi.json", lambda request: json_response(description | _servers(request))))
    routes.append(Route("/metrics", lambda request: _exposition(metrics, request)))
    if settings.admin_keys:
        reload = _KeyCheck(admin.ReloadApp(reloader), OPENAI, settings.admin_keys)
        routes.append(Route(admin.PATH, reload, methods=[admin.DESCRIPTION.method]))
    routes += [Route(path, _page_file(*file)) for path, file in PAGE_FILES.items()]
    application = Starlette(
        routes=[Mount(settings.base_path, routes=routes)] if settings.base_path else routes,
        middleware=[Middleware(Monitor, metrics=metrics), *_cors(settings)],
        exception_handlers={HTTPException: _no_route},
        lifespan=lifespan,
    )
    application.state.server = server
    application.state.reloader = reloader
    return application


async def _save(stats: SummedStats, registry: ModelRegistry) -> None:
    """Tell the other processes what this one has counted, again and again."""
    while True:
        stats.save()
        stats.shared.save_drift({served.name: served.shadow.totals for served in registry if served.shadow is not None})
        await asyncio.sleep(SAVE_S)


def _close_others(registry: ModelRegistry, models: Mapping[str, Model]) -> None:
    """Close the models that replaced those of the caller."""
    for name, model in registry.loaded.items():
        if model is not models[name]:
            model.close()


def _servers(request: Request) -> dict[str, Any]:
    """Return the path before all routes, under which other applications or the base path have put them."""
    return {"servers": [{"url": request.scope.get("root_path") or "/"}]}


def _exposition(metrics: Metrics, request: Request) -> Response:
    content, media_type = metrics.expose(request.headers.get("accept", ""))
    return Response(content, headers={"content-type": media_type})


def _page_file(content: bytes, media_type: str) -> Callable[[Request], Response]:
    return lambda _: Response(content, media_type=media_type, headers=SECURITY_HEADERS)


_CONTRACTS = {"v1": OPENAI, "v2": OPEN_INFERENCE}
"""Forms of failures for unknown routes, by the first part of their paths; of others, that of TEI."""


def _no_route(request: Request, error: Exception) -> Response:
    """Answer 404 for an unknown path and 405 for a wrong method, in the form of the clients that use such paths."""
    assert isinstance(error, HTTPException), "the router raises it"
    path, allowed = request.url.path, (error.headers or {}).get("Allow")
    own_path = path.removeprefix(request.scope.get("root_path", ""))
    contract = _CONTRACTS.get(own_path.removeprefix("/").partition("/")[0], TEI)
    if allowed is None:
        return error_response(contract, RequestError(Failure.UNKNOWN_ROUTE, f"there is no route {path}"))
    message = f"{path} does not take {request.method}; send {allowed}"
    response = error_response(contract, RequestError(Failure.WRONG_METHOD, message))
    response.headers["allow"] = allowed
    return response


def _application(server: Server, endpoint: Endpoint, path: str) -> ASGIApp:
    """Return the application of a route. It asks for a key if the server has keys and the route is not public."""
    application, settings = EndpointApp(server, endpoint, path), server.settings
    is_open = not settings.api_keys or path in PUBLIC
    return application if is_open else _KeyCheck(application, endpoint.contract, settings.api_keys)


class _KeyCheck:
    """Refuses requests without an API key."""

    def __init__(self, inner: ASGIApp, contract: Contract, keys: Iterable[str]) -> None:
        self._inner, self._contract = inner, contract
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the route, or answer 401."""
        if not self._knows(Headers(scope=scope).get("authorization", "")):
            message = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
            response: Response = error_response(self._contract, RequestError(Failure.UNAUTHORIZED, message))
            await response(scope, receive, send)
            return
        await self._inner(scope, receive, send)

    def _knows(self, authorization: str) -> bool:
        """Compare with all keys, by their hashes, so that the time tells neither a key's length nor its beginning."""
        scheme, _, key = authorization.partition(" ")
        given = _digest(key.strip())
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == "bearer" and any(matches)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _cors(settings: ServerSettings) -> list[Middleware]:
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Traceparent", "X-Request-Id", TIMEOUT_HEADER],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    ]
