"""`Connection`: HTTP/1.1 over one kept connection. Usual clients take longer than the measured servers."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer: status, headers by their names in lower case, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """The body as a value of JSON."""
        return json.loads(self.body)


class Connection:
    """One connection, for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> "Connection":
        """Connect to a server."""
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port, limit=2**24))

    async def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request, and return its answer."""
        self.send(path, body, headers)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        content = await self._reader.readexactly(int(fields.get("content-length", 0)))
        return Answer(status=int(head[0].split()[1]), headers=fields, body=content)

    def send(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a request without waiting for its answer."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"POST {path} HTTP/1.1\r\nhost: load\r\ncontent-type: application/json\r\n{lines}"
        self._writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


@contextmanager
def started(arguments: Sequence[str], *, port: int = 0) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run `encort serve` on a port, a free one for 0, and give its process and URL.

    Raises:
        RuntimeError: It did not start.
    """
    command = [sys.executable, "-m", "encort", "serve", *arguments, "--port", str(port), "--no-access-log"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = []
            for line in iter(process.stderr.readline, ""):
                lines.append(line)
                if line.startswith("listening on "):
                    yield process, line.split()[-1]
                    return
            raise RuntimeError("".join(lines))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
