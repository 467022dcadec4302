"""`POST /admin/models/{name}`: the reload of a model, for those who have an admin key."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from encort.runtime.common.errors import EncortError
from encort.runtime.server.endpoints import Description, error_response, json_response
from encort.runtime.server.errors import OPENAI, Failure, RequestError, translate
from encort.runtime.server.operations.info import facts
from encort.runtime.server.operations.record import current
from encort.runtime.server.operations.reload import Reloader

_MOST_BYTES = 2**16


class ReloadRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of the route, which may be empty.

    Attributes:
        bundle: Folder or hub name of the new bundle; None: the bundle before is opened again.
    """

    bundle: str | None = None


DESCRIPTION = Description(
    paths=("/admin/models/{name}",),
    summary="Another bundle for a model, or the same one opened again",
    body=ReloadRequest,
    result=dict[str, Any],
    is_for_admins=True,
)
(PATH,) = DESCRIPTION.paths


class ReloadApp:
    """The route as an ASGI application. It goes on when its client leaves."""

    def __init__(self, reloader: Reloader) -> None:
        """Reload with a reloader."""
        self._reloader = reloader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reload a model, and answer when it serves; 400 if its bundle fails, and the model before serves on."""
        current().route = PATH
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            content = await _read(request)
            body = msgspec.json.decode(content, type=ReloadRequest) if content else ReloadRequest()
            served = await self._reloader.reload_everywhere(request.path_params["name"], body.bundle)
        except (EncortError, OSError) as error:
            message = f"the bundle does not serve, the model before serves on: {error}"
            return error_response(OPENAI, RequestError(Failure.INVALID, message))
        except Exception as error:
            return error_response(OPENAI, translate(error))
        return json_response({"name": served.name, "variant": served.model.variant.name, **facts(served, None)})


async def _read(request: Request) -> bytes:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _MOST_BYTES:
            raise RequestError(Failure.BODY_TOO_LARGE, f"the body has more than {_MOST_BYTES} bytes; name one bundle")
    return content
