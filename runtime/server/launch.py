"""`Launch`: everything that `encort serve` was told, and the server process that follows it."""

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any

import uvicorn

from encort.runtime.common.output.terminal import echo
from encort.runtime.engine.cores import available_cores
from encort.runtime.model import Model, load_with
from encort.runtime.options import LoadOptions
from encort.runtime.server.app import app
from encort.runtime.server.operations import access_log
from encort.runtime.server.operations.proof import describe_proof
from encort.runtime.server.process import run
from encort.runtime.server.settings import ServerSettings


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Options of one server, which other processes can be given.

    Attributes:
        bundles: Folder or hub name of each model, by its name.
        aliases: Names of models by other names for them.
        settings: Options of the application.
        options: Options of every model.
        host: Address to listen on.
        port: Port to listen on.
        unix_socket: Socket to listen on instead.
        tls_certificate: Certificate for HTTPS.
        tls_key: Key of the certificate.
        access_log: Whether a line per request is written to stdout.
    """

    bundles: Mapping[str, str]
    aliases: Mapping[str, str]
    settings: ServerSettings
    options: LoadOptions
    host: str
    port: int
    unix_socket: Path | None
    tls_certificate: Path | None
    tls_key: Path | None
    access_log: bool

    def address(self, bound: Any) -> str:
        """Return the address of a socket: its path, or a URL with the port that it got."""
        if isinstance(bound, str):
            return f"unix:{bound}{self.settings.base_path}"
        scheme = "http" if self.tls_key is None else "https"
        return f"{scheme}://{self.host}:{bound[1]}{self.settings.base_path}"

    def config(self, application: Any) -> uvicorn.Config:
        """Return the configuration of uvicorn."""
        return uvicorn.Config(
            application,
            host=self.host,
            port=self.port,
            uds=None if self.unix_socket is None else str(self.unix_socket),
            ssl_certfile=self.tls_certificate,
            ssl_keyfile=self.tls_key,
            log_level="warning",
            access_log=False,
            server_header=False,
            # Addresses of proxies are for logs, which do not have them.
            proxy_headers=False,
            # A request ends within timeout_s; only a client that does not read its answer takes longer.
            timeout_graceful_shutdown=int(self.settings.timeout_s) + 1,
        )


def serve(
    launch: Launch,
    *,
    sockets: list[socket] | None = None,
    on_ready: Callable[[], object] | None = None,
    is_quiet: bool = False,
) -> None:
    """Load the models, prove them, and serve until SIGTERM or SIGINT. Until then, a signal ends the process at once.

    Args:
        launch: Options of the server.
        sockets: Sockets that listen already; None: those of the options are opened.
        on_ready: Called when the server takes requests; None: the address is printed then.
        is_quiet: Whether nothing is said about the models.

    Raises:
        EncortError: A bundle cannot be served.
        SystemExit: At the end.
    """
    logging.getLogger("encort.server").setLevel(logging.INFO)  # reloads that succeed too
    if launch.access_log:
        access_log.write_to_stdout()
    with contextlib.ExitStack() as stack:
        models: dict[str, Model] = {}
        for name, bundle in launch.bundles.items():
            models[name] = stack.enter_context(load_with(bundle, launch.options))
            models[name].warm_up()
        application = app(models, aliases=launch.aliases, settings=launch.settings, sources=launch.bundles)
        for name, model in models.items():
            if is_quiet:
                break
            proof = application.state.server.models.proof(name)
            echo(_line(name, launch.bundles[name], model, describe_proof(proof)), err=True)
        config = launch.config(application)
        run(
            config,
            lambda bound: on_ready() if on_ready else echo(f"listening on {launch.address(bound)}", err=True),
            application.state.reloader.reload_all,
            sockets=sockets,
        )


def _line(name: str, bundle: str, model: Model, proof: str) -> str:
    heads = ", ".join(f"{head.name} ({head.task})" for head in model.manifest.heads) or "embeddings"
    threads = model.options.threads or available_cores()
    return f"{name}: {bundle}, {heads}, variant {model.variant.name}, threads {threads}, {proof}"
