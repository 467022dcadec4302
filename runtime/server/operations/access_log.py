"""One line of JSON per request, in the logger `encort.access`. It never holds a text."""

import logging
import sys
import time
from typing import Any

import orjson

from encort.runtime.server.operations.record import RequestRecord

LOG = logging.getLogger("encort.access")


def write(record: RequestRecord, *, total_s: float) -> None:
    """Write the line of a request that was answered, or that its client left. Without a handler, nothing is written."""
    if not LOG.isEnabledFor(logging.INFO):
        return
    now = time.time()
    line: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z",
        "request_id": record.request_id,
        "method": record.method,
        # A path of raw bytes may have unpaired surrogates, which JSON cannot have.
        "path": record.path if record.path.isascii() else ascii(record.path),
        "status": record.status,
        "total_ms": _ms(total_s),
    }
    if record.model:
        line["model"] = record.model
    if record.trace_id:
        line["trace_id"] = record.trace_id
    if record.calls:
        line |= {
            "texts": record.texts,
            "tokens": record.tokens,
            "tokenization_ms": _ms(record.tokenization_s),
            "queue_ms": _ms(record.queue_s),
            "run_ms": _ms(record.run_s),
        }
    LOG.info("%s", orjson.dumps(line).decode())


def write_to_stdout() -> None:
    """Let the logger write to the standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
