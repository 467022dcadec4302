"""`run`: a server process, from its first request to the signal that ends it."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from socket import socket
from typing import Any

import uvicorn

Announce = Callable[[Any], None]
"""Gets the address of the first socket, as `socket.getsockname` returns it."""


def run(config: uvicorn.Config, announce: Announce) -> None:
    """Serve until SIGTERM or SIGINT, finish the requests that have begun, and exit with 0.

    Args:
        config: The application and its sockets.
        announce: Called when the server listens. Port 0 is a free port by then.

    Raises:
        SystemExit: Always, so that the caller's contexts are closed.
    """
    # uvicorn handles both signals while it serves, and raises them again at its end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        _Server(config, announce).run()
    finally:
        if config.uds is not None:
            Path(config.uds).unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """Tells where it listens."""

    def __init__(self, config: uvicorn.Config, announce: Announce) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce(self.servers[0].sockets[0].getsockname())
