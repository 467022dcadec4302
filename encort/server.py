"""The server over HTTP: `app` gives the ASGI application to those who mount it in their own."""

from encort.runtime.common.extras import require

require("encort.server", "serve", "msgspec", "orjson", "prometheus_client", "starlette")

from encort.runtime.server.app import app  # noqa: E402 - after the check for its packages
from encort.runtime.server.settings import ServerSettings  # noqa: E402

__all__ = ["ServerSettings", "app"]
