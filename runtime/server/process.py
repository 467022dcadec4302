"""`run`: a server process, from its first request to the signal that ends it."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from socket import socket
from typing import Any

import uvicorn

Reload = Callable[[], Coroutine[Any, Any, None]]
"""Reloads every model."""
Announce = Callable[[Any], object]
"""Gets the address of the first socket, as `socket.getsockname` returns it."""


def run(config: uvicorn.Config, announce: Announce, reload: Reload, *, sockets: list[socket] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, finish the requests that have begun, and exit with 0.

    Args:
        config: The application and its sockets.
        announce: Called when the server listens. Port 0 is a free port by then.
        reload: Called at SIGHUP.
        sockets: Sockets that listen already; None: those of the configuration are opened.

    Raises:
        SystemExit: Always, so that the caller's contexts are closed.
    """
    end_at_signals()
    try:
        _Server(config, announce, reload).run(sockets)
    finally:
        if config.uds is not None:
            Path(config.uds).unlink(missing_ok=True)


def end_at_signals() -> None:
    """Exit with 0 at SIGTERM and SIGINT. uvicorn handles both while it serves, and raises them again at its end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))


class _Server(uvicorn.Server):
    """Tells where it listens, and reloads at SIGHUP."""

    def __init__(self, config: uvicorn.Config, announce: Announce, reload: Reload) -> None:
        super().__init__(config)
        self._announce, self._reload = announce, reload
        self._reloading: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            if hasattr(signal, "SIGHUP"):
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._start_reload)
            self._announce((sockets or self.servers[0].sockets)[0].getsockname())

    def _start_reload(self) -> None:
        task = asyncio.ensure_future(self._reload())
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)
