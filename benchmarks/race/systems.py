"""The systems of the race: their list, their environments and their processes."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "peers"
OURS = ("encort_runtime", "drop_in")
"""Peers that import encort: its own interface, and its drop-in for sentence-transformers."""


@dataclass(frozen=True, kw_only=True)
class System:
    """A library with the settings that it embeds texts with.

    Attributes:
        name: Name in tables.
        peer: Name of the script in `peers`, and of the file beside it with the packages of its environment.
        variant: One of the script's variants.
        precision: Precision of the matrix products.
    """

    name: str
    peer: str
    variant: str
    precision: str

    @property
    def key(self) -> str:
        """Unique name, also for the command line."""
        return f"{self.peer}:{self.variant}"


SYSTEMS = (
    System(name="eager PyTorch, as texts come", peer="eager", variant="fp32", precision="fp32"),
    System(name="eager PyTorch, sorted by tokens", peer="eager", variant="fp32-sorted", precision="fp32"),
    System(name="eager PyTorch, as texts come", peer="eager", variant="bf16", precision="bf16"),
    System(name="eager PyTorch, sorted by tokens", peer="eager", variant="bf16-sorted", precision="bf16"),
    System(name="torch.compile, sorted by tokens", peer="eager", variant="compiled-sorted", precision="fp32"),
    System(name="Optimum ORTModel, as texts come", peer="ort_model", variant="fp32", precision="fp32"),
    System(name="Optimum ORTModel, sorted by tokens", peer="ort_model", variant="fp32-sorted", precision="fp32"),
    System(name="FastEmbed, as texts come", peer="fast_embed", variant="fp32", precision="fp32"),
    System(name="FastEmbed, sorted by length", peer="fast_embed", variant="fp32-sorted", precision="fp32"),
    System(
        name="sentence-transformers, torch", peer="sentence_transformers_peer", variant="torch-fp32", precision="fp32"
    ),
    System(
        name="sentence-transformers, torch", peer="sentence_transformers_peer", variant="torch-bf16", precision="bf16"
    ),
    System(
        name="sentence-transformers, ONNX", peer="sentence_transformers_peer", variant="onnx-fp32", precision="fp32"
    ),
    System(
        name="sentence-transformers, ONNX", peer="sentence_transformers_peer", variant="onnx-int8", precision="int8"
    ),
    System(name="CTranslate2", peer="ctranslate", variant="fp32", precision="fp32"),
    System(name="CTranslate2", peer="ctranslate", variant="int8", precision="int8"),
    System(name="OpenVINO", peer="open_vino", variant="fp32", precision="fp32"),
    System(name="OpenVINO", peer="open_vino", variant="bf16", precision="bf16"),
    System(name="OpenVINO (NNCF)", peer="open_vino", variant="int8", precision="int8"),
    System(name="encort as SentenceTransformer", peer="drop_in", variant="fp32", precision="fp32"),
    System(name="encort as SentenceTransformer", peer="drop_in", variant="int8", precision="int8"),
    System(name="encort", peer="encort_runtime", variant="fp32", precision="fp32"),
    System(name="encort", peer="encort_runtime", variant="int8", precision="int8"),
    System(name="encort with encort-kernels", peer="encort_runtime", variant="native-bf16", precision="bf16"),
    System(name="encort with encort-kernels", peer="encort_runtime", variant="native-int8", precision="int8"),
)
LIMITS = (
    System(name="matrix product", peer="limits", variant="fp32", precision="fp32"),
    System(name="matrix product", peer="limits", variant="bf16", precision="bf16"),
    System(name="matrix product", peer="limits", variant="int8", precision="int8"),
)
"""One large matrix product, which is no encoder: it shows how fast an encoder's matrix products could be at best."""

_STANDARD_ERROR = 2
_ISOLATION = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "XDG_CACHE_HOME": str(ROOT / "build" / "race" / "cache")}
"""No model hub, no second copy of encort, and no costs that an earlier run measured on this machine."""
_ANSWER_TIMEOUT_S = 1800
"""A system that has not answered by then has failed."""


class SystemFailedError(Exception):
    """A system failed; the message is its own."""


def environment(peer: str, folder: Path) -> Path:
    """Return the Python of a peer's environment; make the environment if it is missing or its pins have changed.

    Args:
        peer: Name of the peer.
        folder: Folder of all environments.

    Raises:
        subprocess.CalledProcessError: A package cannot be installed.
    """
    pins = PEERS / f"{peer}.txt"
    version = hashlib.sha256(pins.read_bytes()).hexdigest()
    python, made = folder / peer / "bin" / "python", folder / peer / "made"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    if not made.is_file() or made.read_text(encoding="utf-8") != version:
        _run(sys.executable, "-m", "venv", "--clear", str(folder / peer))
        # First and alone: once it is installed, no other package brings another build of it.
        torch = [line for line in pins.read_text(encoding="utf-8").split() if line.startswith("torch==")]
        if torch:
            _run(*install, *torch)
        _run(*install, "--requirement", str(pins))
        made.write_text(version, encoding="utf-8")
    if peer in OURS:
        kernels = [str(ROOT / "kernels")] if shutil.which("c++") else []
        _run(*install, "--no-deps", "--force-reinstall", str(ROOT), *kernels)
    return python


def prepare(system: System, python: Path, *, checkpoint: Path, folder: Path, texts: Sequence[str]) -> None:
    """Let a system make what it serves from a checkpoint, unless it already did.

    Args:
        system: System to prepare.
        python: Python of its environment.
        checkpoint: Folder of the checkpoint.
        folder: Folder for the system's files.
        texts: Texts for systems that calibrate.

    Raises:
        subprocess.CalledProcessError: The system failed.
    """
    made = folder / "made"
    script = PEERS / f"{system.peer}.py"
    parts = [script, PEERS / "protocol.py", PEERS / f"{system.peer}.txt", checkpoint / "config.json"]
    version = hashlib.sha256(b"".join(map(Path.read_bytes, parts)) + json.dumps(list(texts)).encode()).hexdigest()
    if made.is_file() and made.read_text(encoding="utf-8") == version:
        return
    folder.mkdir(parents=True, exist_ok=True)
    texts_file = folder / "texts.json"
    texts_file.write_text(json.dumps(list(texts)), encoding="utf-8")
    _run(str(python), str(script), "prepare", system.variant, str(checkpoint), str(folder), str(texts_file))
    made.write_text(version, encoding="utf-8")


class SystemProcess:
    """The process of a system. It is stopped except during `run`, so that it takes no time from the other systems.

    Attributes:
        versions: Versions of the packages.
        load_seconds: Seconds from the start to the first embedding.
    """

    def __init__(self, system: System, python: Path, *, checkpoint: Path, folder: Path, threads: int) -> None:
        """Start the process and wait until it has embedded a first text.

        Args:
            system: System to start.
            python: Python of its environment.
            checkpoint: Folder of the checkpoint.
            folder: Folder that `prepare` filled.
            threads: Threads that the system may use.

        Raises:
            SystemFailedError: The system failed.
        """
        script, start = str(PEERS / f"{system.peer}.py"), time.perf_counter()
        self._process = subprocess.Popen(
            [str(python), script, "serve", system.variant, str(checkpoint), str(folder), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | _ISOLATION | {"OMP_NUM_THREADS": str(threads)},
        )
        try:
            self.versions: dict[str, str] = self._answer()["versions"]
        except BaseException:
            self.close()
            raise
        self.load_seconds = time.perf_counter() - start
        self._signal(signal.SIGSTOP)

    def run(self, calls: Sequence[Sequence[str]], *, output: Path | None = None) -> Any:
        """Let the system embed the texts of each call, and return its answer; see `peers/protocol.py`.

        Args:
            calls: Texts of each call.
            output: File for the embeddings of all calls; None drops them.

        Raises:
            SystemFailedError: The system failed.
        """
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        try:
            request = {"calls": calls, "output": None if output is None else str(output)}
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return self._answer()
        except BrokenPipeError as error:
            raise SystemFailedError("its process ended") from error
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        timer = threading.Timer(_ANSWER_TIMEOUT_S, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        answer = json.loads(line) if line else {"error": f"its process ended with {self._process.wait()}"}
        if "error" in answer:
            raise SystemFailedError(answer["error"])
        return answer

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=_STANDARD_ERROR, env=os.environ | _ISOLATION)
