"""`ServerSettings`: the options of a server."""

import threading
from dataclasses import dataclass
from pathlib import Path

from encort.runtime.common.checks import check_number, check_whole
from encort.runtime.common.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Options of `app`, which are those of `encort serve`.

    Attributes:
        max_body_bytes: Most bytes of a request's body.
        max_items: Most texts or pairs of a request.
        max_tokens: Most tokens of a request, of all its texts together.
        queue_tokens: Most tokens that wait for one model; see `Model.serving`.
        max_wait_ms: Milliseconds that a text waits for others while a core is free; see `Model.serving`.
        timeout_s: Most seconds of a request, if its client sets no lower limit; see `endpoints.TIMEOUT_HEADER`.
        te_metrics: Whether `/metrics` also has the names of text-embeddings-inference.
        drift_share: Share of the requests that run again in fp32, to see what a lower precision changes; see
            `operations.drift`.
        drift_most_time: Most time of these runs, on one core, as a share of the time that passes.
        api_keys: Keys of which a request must have one, as `Authorization: Bearer KEY`. Without keys, all may call.
        admin_keys: Keys of which `POST /admin/models/{name}` must have one. Without them, there is no such route.
        cors_origins: Origins whose pages may call the server; `"*"` for all.
        shared_folder: Folder that the worker processes of one server share; None: there is one process.
        base_path: Path before all routes, such as `/models`.
    """

    max_body_bytes: int = 2**24
    max_items: int = 2048
    max_tokens: int = 2**18
    queue_tokens: int = 65536
    max_wait_ms: float = 0.0
    timeout_s: float = 60.0
    te_metrics: bool = False
    drift_share: float = 0.0
    drift_most_time: float = 0.05
    api_keys: tuple[str, ...] = ()
    admin_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    shared_folder: Path | None = None
    base_path: str = ""

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_items", "max_tokens", "queue_tokens"):
            check_whole(name, getattr(self, name), least=1)
        for name in ("max_wait_ms", "timeout_s", "drift_share", "drift_most_time"):
            check_number(name, getattr(self, name))
        for name in ("drift_share", "drift_most_time"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be a number from 0 to 1, got {getattr(self, name)}")
        if not 0 < self.timeout_s <= threading.TIMEOUT_MAX:
            raise InputError(f"timeout_s must be a number above 0, got {self.timeout_s}")
        if self.base_path and (not self.base_path.startswith("/") or self.base_path.endswith("/")):
            raise InputError(f"base_path must begin with / and not end with it, got {self.base_path!r}")
        if not all((*self.api_keys, *self.admin_keys)):
            raise InputError("an API key is empty; remove it, or all may call the server")
