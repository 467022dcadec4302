"""A fake of the server for the page: its files, and one canned answer per route."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from encort.runtime.server.page import PAGE_FILES, SECURITY_HEADERS

KEY = "a-key"
TIMES = {"x-total-time": "7", "x-queue-time": "1", "x-inference-time": "5", "x-tokenization-time": "0"}
TASKS = ["embed", "classify", "tag", "answer", "rank"]
MODELS = {"data": [{"id": "all", "tasks": TASKS}, {"id": "<b>tags</b>", "tasks": ["tag", "a later task"]}]}
ANSWERS: dict[str, Any] = {
    "/v1/models": MODELS,
    "/v1/embeddings": {
        "data": [{"index": 0, "embedding": [1, 0]}, {"index": 1, "embedding": [0.6, 0.8]}],
        "usage": {"total_tokens": 12},
    },
    "/v1/classify": {"data": [{"index": 0, "label": "<i>", "score": 0.75, "scores": {"<i>": 0.75, "b": 0.25}}]},
    "/v1/tag": {"data": [{"index": 0, "spans": [{"label": "PER", "score": 0.9, "start": 2, "end": 5, "text": "Ada"}]}]},
    "/v1/answer": {"data": [{"index": 0, "answers": [{"text": "1932", "score": 0.5, "start": 3, "end": 7}]}]},
    "/v1/rerank": {"results": [{"index": 1, "relevance_score": 3.5}, {"index": 0, "relevance_score": -1.0}]},
}


class Handler(BaseHTTPRequestHandler):
    """Answers from the tables above."""

    def do_GET(self) -> None:
        if self.path in PAGE_FILES:
            content, media_type = PAGE_FILES[self.path]
            self.answer(200, content, {"content-type": media_type, **SECURITY_HEADERS})
        else:
            self.do_POST()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        wanted = getattr(self.server, "key", None)
        if wanted and self.headers.get("authorization") != f"Bearer {wanted}":
            self.answer_json(401, {"error": {"message": "no <b>valid</b> key"}})
        elif self.path in ANSWERS:
            self.answer_json(200, ANSWERS[self.path])
        else:
            self.answer_json(404, {"error": "no such page"})

    def answer_json(self, status: int, value: object) -> None:
        self.answer(status, json.dumps(value).encode(), {"content-type": "application/json", **TIMES})

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        pass


@contextmanager
def page_server(*, key: str | None = None) -> Iterator[str]:
    """Serve the page, and give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.key = key  # type: ignore[attr-defined] # the handler reads it
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
