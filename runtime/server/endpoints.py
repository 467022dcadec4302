"""`Endpoint`: a route with its request, its contract and its handler; and the walk of every request through it."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from encort.runtime.server.errors import Contract, Failure, RequestError, translate
from encort.runtime.server.models import ModelRegistry
from encort.runtime.server.operations.record import current
from encort.runtime.server.operations.shared import SharedFolder
from encort.runtime.server.settings import ServerSettings

TIMEOUT_HEADER = "x-request-timeout-ms"
"""Header with the milliseconds that a client waits for its answer. Texts are not run after that."""
RETRY_AFTER_S = 1
"""Seconds after which an overloaded or unready server may be asked again."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """Models and settings, for every handler.

    Attributes:
        models: The served models.
        settings: Options of the server.
        shared: What the processes of the server tell each other; None: there is one process.
    """

    models: ModelRegistry
    settings: ServerSettings
    shared: SharedFolder | None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The answer of a handler.

    Attributes:
        content: A value of JSON, where arrays of numpy are lists; or the bytes of a body, whose type is in the headers.
            None for an empty body.
        headers: Headers of the response.
    """

    content: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Description:
    """Facts about one route, for the documentation.

    Attributes:
        paths: Its paths.
        summary: One line.
        body: Type of the request's body; None for GET.
        result: Type of the response's body.
        is_for_admins: Whether it needs one of the keys of operators.
    """

    paths: tuple[str, ...]
    summary: str
    body: type[msgspec.Struct] | None = None
    result: Any = None
    is_for_admins: bool = False

    @property
    def method(self) -> str:
        """Method of HTTP."""
        return "GET" if self.body is None else "POST"


@dataclass(frozen=True, kw_only=True)
class Endpoint(Description):
    """One route.

    Attributes:
        contract: Form of its failures.
        handler: Gets the server and the request, and makes the reply.
        parse: Makes what the handler gets of the request and the bytes of its body; None: the JSON of the body.
    """

    contract: Contract
    handler: Callable[[Server, Any], Awaitable[Reply]]
    parse: Callable[[Request, bytes], Any] | None = None


class EndpointApp:
    """An endpoint as an ASGI application."""

    def __init__(self, server: Server, endpoint: Endpoint, path: str) -> None:
        """Answer the requests of one path of an endpoint."""
        self._server, self._endpoint, self._path = server, endpoint, path
        self._parse = endpoint.parse or _json_parser(endpoint.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. A client that disconnects cancels the work, and so does the end of its time."""
        record = current()
        record.route = self._path
        try:
            timeout_s = _timeout_s(Headers(scope=scope), most=self._server.settings.timeout_s)
            record.deadline = record.received + timeout_s
            try:
                async with asyncio.timeout(record.seconds_left):
                    response = await self._answer(Request(scope, receive), receive)
            except TimeoutError:
                message = f"there was no result within {1000 * timeout_s:g} ms; give it longer with {TIMEOUT_HEADER}"
                raise RequestError(Failure.TOO_LATE, f"{message}, up to timeout_s of the server") from None
        except ClientDisconnect:
            return
        except Exception as error:
            response = error_response(self._endpoint.contract, translate(error))
        await response(scope, receive, send)

    async def _answer(self, request: Request, receive: Receive) -> Response:
        if self._endpoint.body is None:
            body = self._parse(request, b"")
        else:
            body = self._parse(request, await _read(request, self._server.settings.max_body_bytes))
            current().model = self._server.models.name_of(getattr(body, "model", None))
        reply = await _unless_disconnected(self._endpoint.handler(self._server, body), receive)
        return json_response(reply.content, headers=reply.headers)


def _json_parser(body: type[msgspec.Struct] | None) -> Callable[[Request, bytes], Any]:
    """Return a function that reads the JSON of a body; None if there is no body."""
    if body is None:
        return lambda _, __: None
    decoder = msgspec.json.Decoder(body)
    return lambda _, content: decoder.decode(content)


def _timeout_s(headers: Headers, *, most: float) -> float:
    """Return the seconds that a request may take.

    Raises:
        RequestError: The header is not a number above 0.
    """
    given = headers.get(TIMEOUT_HEADER)
    if given is None:
        return most
    try:
        timeout_s = float(given) / 1000
    except ValueError:
        timeout_s = math.nan
    if not timeout_s > 0:
        raise RequestError(Failure.INVALID, f"{TIMEOUT_HEADER} must be a number above 0, got {given!r}")
    return min(timeout_s, most)


async def _read(request: Request, most: int) -> bytes:
    """Return the body, without reading more than is allowed of it."""
    content = bytearray()
    too_large = RequestError(Failure.BODY_TOO_LARGE, f"the body has more than max_body_bytes={most}; send fewer texts")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise too_large
    async for chunk in request.stream():
        content += chunk
        if len(content) > most:
            raise too_large
    return bytes(content)


async def _unless_disconnected(work: Awaitable[Reply], receive: Receive) -> Reply:
    """Return the reply. Raises `ClientDisconnect` and cancels the work if nobody waits for it any more."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def json_response(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a value of JSON, or with bytes whose type is in the headers."""
    if content is None or isinstance(content, bytes):
        return Response(content, status, headers)
    encoded = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(encoded, status, headers, media_type="application/json")


def error_response(contract: Contract, error: RequestError) -> Response:
    """Return the response of a failure in the form of a contract."""
    status = contract.status(error.failure)
    headers = {"retry-after": str(RETRY_AFTER_S)} if status in (429, 503) else {}
    return json_response(contract.body(status, error.failure, str(error)), status=status, headers=headers)
