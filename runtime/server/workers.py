"""`supervise`: several processes that share one address, the cores and the limits of a server."""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from socket import socket

from prometheus_client.multiprocess import mark_process_dead

from encort.runtime.common.errors import EncortError
from encort.runtime.common.output.terminal import echo, log_to_stderr
from encort.runtime.engine.cores import available_cores
from encort.runtime.server.launch import Launch, serve
from encort.runtime.server.operations.shared import SharedFolder

_SPAWN = multiprocessing.get_context("spawn")
_POLL_S = 0.2
_MIN_LIFE_S = 5.0
"""A worker that dies earlier is replaced only after a pause, so that failing workers do not take all cores."""


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    ready: Event
    begun: float = field(default_factory=time.monotonic)


def supervise(launch: Launch, *, workers: int) -> None:
    """Serve with several processes until SIGTERM or SIGINT. A process that dies is replaced, SIGHUP goes to all.

    The processes accept connections from one socket. Each has its share of the cores and of the queue's tokens; the
    pages of mapped weights are in memory once.

    Args:
        launch: Options of the whole server.
        workers: Number of processes.

    Raises:
        SystemExit: At the end, with 0; with the status of the first process, if it cannot serve.
    """
    with tempfile.TemporaryDirectory(prefix="encort-") as folder, _bound(launch) as listening:
        shared = SharedFolder(Path(folder))
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared.metrics)  # read when a worker imports prometheus-client
        _Supervisor(_share(launch, workers, Path(folder)), workers, listening, shared).run()


def _share(launch: Launch, workers: int, folder: Path) -> Launch:
    """Return the options of one worker."""
    threads = max(1, (launch.options.threads or available_cores()) // workers)
    settings = replace(launch.settings, queue_tokens=launch.settings.queue_tokens // workers, shared_folder=folder)
    return replace(launch, settings=settings, options=replace(launch.options, threads=threads))


@contextlib.contextmanager
def _bound(launch: Launch) -> Iterator[socket]:
    listening = launch.config(None).bind_socket()
    try:
        yield listening
    finally:
        listening.close()
        if launch.unix_socket is not None:
            launch.unix_socket.unlink(missing_ok=True)


class _Supervisor:
    """Keeps a number of workers. The invariant: until it ends, each worker that has died is replaced or it ends too."""

    def __init__(self, launch: Launch, count: int, listening: socket, shared: SharedFolder) -> None:
        self._launch, self._count, self._listening, self._shared = launch, count, listening, shared
        self._workers: list[_Worker] = []
        self._is_ending = False

    def run(self) -> None:
        """Start one worker, then the others when it serves, and keep their number until a signal ends all."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._end())
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda *_: self._send(signal.SIGHUP))
        first = self._start(is_first=True)
        while not (self._is_ending or first.ready.wait(_POLL_S)):
            if first.process.exitcode is not None:  # it has said why
                sys.exit(first.process.exitcode)
        self._fill()
        if not self._is_ending:
            echo(f"listening on {self._launch.address(self._listening.getsockname())}", err=True)
        while not self._is_ending:
            self._remove_dead()
            self._fill()
        for worker in self._workers:
            worker.process.join()
        sys.exit(0)

    def _fill(self) -> None:
        """Start the workers that are missing, and wait until they serve or have ended."""
        for worker in [self._start() for _ in range(self._count - len(self._workers)) if not self._is_ending]:
            while not (self._is_ending or worker.ready.wait(_POLL_S) or worker.process.exitcode is not None):
                pass

    def _start(self, *, is_first: bool = False) -> _Worker:
        ready = _SPAWN.Event()
        process = _SPAWN.Process(target=_work, args=(self._launch, self._listening, ready, is_first, os.getpid()))
        process.start()
        self._workers.append(_Worker(process, ready))
        return self._workers[-1]

    def _remove_dead(self) -> None:
        wait([worker.process.sentinel for worker in self._workers], _POLL_S)
        for worker in [worker for worker in self._workers if worker.process.exitcode is not None]:
            self._workers.remove(worker)
            process = worker.process.pid
            assert process is not None, "it was started"
            mark_process_dead(process, str(self._shared.metrics))  # type: ignore[no-untyped-call] # it has no types
            self._shared.mark_dead(process)
            if not self._is_ending:
                echo(f"worker {process} ended with {worker.process.exitcode}; another one starts", err=True)
                time.sleep(0 if time.monotonic() - worker.begun > _MIN_LIFE_S else 1)

    def _end(self) -> None:
        self._is_ending = True
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.process.exitcode is None and worker.process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.process.pid, number)


def _work(launch: Launch, listening: socket, ready: Event, is_first: bool, parent: int) -> None:
    """Serve in this process, until a signal or the end of the supervisor."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a reload needs a worker that serves
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    log_to_stderr()
    bundles = {**launch.bundles, **SharedFolder(Path(str(launch.settings.shared_folder))).bundles()}
    try:
        serve(replace(launch, bundles=bundles), sockets=[listening], on_ready=ready.set, is_quiet=not is_first)
    except EncortError as error:
        echo(str(error), err=True)
        sys.exit(error.exit_code)


def _end_with(parent: int) -> None:
    """Drain and end when the supervisor has died, so that nothing holds the port."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
