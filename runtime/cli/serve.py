"""The command `encort serve`: bundles over HTTP."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from encort.runtime.cli.options import FOLDER, LOAD_OPTIONS, add_options

if TYPE_CHECKING:
    from encort.runtime.options import DeviceName, PrecisionName


@click.command(context_settings={"auto_envvar_prefix": "ENCORT"})
@click.argument("bundles", nargs=-1, required=True)
@click.option("--alias", "aliases", multiple=True, help="Another name of a model, as NEW=NAME; may be repeated.")
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 for all of the machine.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, help="Port to listen on; 0 for a free one.")
@click.option("--unix-socket", type=FOLDER, help="Listen on this socket instead of a port.")
@click.option("--tls-certificate", type=FOLDER, help="Certificate for HTTPS, a .pem file.")
@click.option("--tls-key", type=FOLDER, help="Key of the certificate, a .pem file.")
@click.option("--api-key-file", type=FOLDER, help="File of the API keys, one per line; a request must have one.")
@click.option("--admin-key-file", type=FOLDER, help="File of the keys for POST /admin/models/{name}, one per line.")
@click.option("--cors-origin", multiple=True, help="Origin whose pages may call the server; may be repeated.")
@click.option("--base-path", default="", help="Path before all routes, such as /models.")
@click.option("--max-body-bytes", type=int, default=2**24, help="Most bytes of a request's body.")
@click.option("--max-items", type=int, default=2048, help="Most texts of a request.")
@click.option("--max-tokens", type=int, default=2**18, help="Most tokens of a request, of all its texts together.")
@click.option("--queue-tokens", type=int, default=65536, help="Most tokens that wait for one model.")
@click.option("--max-wait-ms", type=float, default=0.0, help="Time that a text waits for others while a core is free.")
@click.option("--timeout-s", type=float, default=60.0, help="Most seconds of a request; clients may set less.")
@click.option("--te-metrics", is_flag=True, help="Give metrics by the names of text-embeddings-inference too.")
@click.option("--drift-share", type=float, default=0.0, help="Share of the requests that run again in fp32.")
@click.option("--drift-most-time", type=float, default=0.05, help="Most time of these runs, as a share of all time.")
@click.option("--workers", type=click.IntRange(1), default=1, help="Processes that share the port and the cores.")
@click.option("--access-log/--no-access-log", default=True, help="Write a line of JSON per request to stdout.")
@add_options(*LOAD_OPTIONS)
def serve(
    bundles: tuple[str, ...],
    aliases: tuple[str, ...],
    host: str,
    port: int,
    unix_socket: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    api_key_file: Path | None,
    admin_key_file: Path | None,
    cors_origin: tuple[str, ...],
    base_path: str,
    max_body_bytes: int,
    max_items: int,
    max_tokens: int,
    queue_tokens: int,
    max_wait_ms: float,
    timeout_s: float,
    te_metrics: bool,
    drift_share: float,
    drift_most_time: float,
    workers: int,
    access_log: bool,
    device: "DeviceName",
    precision: "PrecisionName",
    threads: int | None,
) -> None:
    """Serve BUNDLES over HTTP, each a bundle or NAME=BUNDLE. The first is that of requests without a name.

    Every option can be given as a variable of the environment too, such as ENCORT_PORT for --port, and keys as
    ENCORT_API_KEYS and ENCORT_ADMIN_KEYS, separated by spaces. SIGHUP opens the bundles again, without a gap.

    \b
    encort serve banking.bundle --port 8080
    encort serve small=minilm.bundle large=bge.bundle --alias text-embedding-3-small=small
    """  # noqa: D301 - click's mark for examples is the character itself
    from encort.runtime.common.extras import require

    require("encort serve", "serve", "msgspec", "orjson", "prometheus_client", "starlette", "uvicorn")

    from encort.runtime.common.errors import InputError
    from encort.runtime.options import LoadOptions
    from encort.runtime.server.launch import Launch
    from encort.runtime.server.launch import serve as serve_bundles
    from encort.runtime.server.settings import ServerSettings

    settings = ServerSettings(
        max_body_bytes=max_body_bytes,
        max_items=max_items,
        max_tokens=max_tokens,
        queue_tokens=queue_tokens,
        max_wait_ms=max_wait_ms,
        timeout_s=timeout_s,
        te_metrics=te_metrics,
        drift_share=drift_share,
        drift_most_time=drift_most_time,
        api_keys=_keys(api_key_file, "ENCORT_API_KEYS"),
        admin_keys=_keys(admin_key_file, "ENCORT_ADMIN_KEYS"),
        cors_origins=cors_origin,
        base_path=base_path,
    )
    named = _named("bundle", [item if "=" in item else f"{Path(item).stem}={item}" for item in bundles])
    other_names = _named("alias", aliases)
    if bool(tls_certificate) != bool(tls_key):
        raise InputError("TLS needs both: --tls-certificate and --tls-key")
    launch = Launch(
        bundles=named,
        aliases=other_names,
        settings=settings,
        options=LoadOptions(device=device, precision=precision, threads=threads),
        host=host,
        port=port,
        unix_socket=unix_socket,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        access_log=access_log,
    )
    if workers == 1:
        serve_bundles(launch)
    else:
        from encort.runtime.server.workers import supervise

        supervise(launch, workers=workers)


def _named(kind: str, items: Sequence[str]) -> dict[str, str]:
    """Return values by name of arguments like `NAME=VALUE`.

    Raises:
        InputError: A name or a value is missing, or a name occurs twice.
    """
    from encort.runtime.common.errors import InputError

    named: dict[str, str] = {}
    for item in items:
        name, _, value = item.partition("=")
        if not name or not value:
            raise InputError(f"expected {kind} as NAME=VALUE, got {item!r}")
        if name in named:
            raise InputError(f"{kind} {name!r} is given twice; name them as NAME=VALUE")
        named[name] = value
    return named


def _keys(file: Path | None, variable: str) -> tuple[str, ...]:
    from encort.runtime.common.errors import InputError

    keys = os.environ.get(variable, "").split()
    if file is not None:
        lines = file.read_text(encoding="utf-8").split()
        if not lines:
            raise InputError(f"{file} has no keys; write one per line")
        keys += lines
    return tuple(keys)
