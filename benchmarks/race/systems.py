"""The systems of the race, each in an environment and a process of its own."""

import hashlib
import json
import os
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
OURS = "encort_runtime"


@dataclass(frozen=True, kw_only=True)
class System:
    """One way to embed texts.

    Attributes:
        name: In tables.
        peer: Script below `peers`, beside the packages of its environment.
        variant: Which of its ways.
        precision: Of its products.
    """

    name: str
    peer: str
    variant: str
    precision: str

    @property
    def key(self) -> str:
        """Its name on the command line."""
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
    System(name="encort", peer=OURS, variant="fp32", precision="fp32"),
    System(name="encort", peer=OURS, variant="int8", precision="int8"),
)
LIMITS = (
    System(name="matrix product", peer="limits", variant="fp32", precision="fp32"),
    System(name="matrix product", peer="limits", variant="int8", precision="int8"),
)
"""Not encoders: one large product, at whose speed an encoder's products could run if nothing stood beside them."""


_STANDARD_ERROR = 2
_ALONE = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "XDG_CACHE_HOME": str(ROOT / "build" / "race" / "cache")}
"""No model hub, no second copy of encort, and nothing that an earlier run has learned of this machine."""
_PATIENCE_S = 1800
"""A system that has not answered by then has failed."""


class SystemFailedError(Exception):
    """A system failed, in its own words."""


def environment(peer: str, folder: Path) -> Path:
    """The Python of a peer's environment, made where it is not there or its pins have changed.

    Raises:
        subprocess.CalledProcessError: A package cannot be installed.
    """
    pins = PEERS / f"{peer}.txt"
    version = hashlib.sha256(pins.read_bytes()).hexdigest()
    python, made = folder / peer / "bin" / "python", folder / peer / "made"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    if not made.is_file() or made.read_text(encoding="utf-8") != version:
        _run(sys.executable, "-m", "venv", "--clear", str(folder / peer))
        # First and alone: with it installed nothing else brings another build of it.
        torch = [line for line in pins.read_text(encoding="utf-8").split() if line.startswith("torch==")]
        if torch:
            _run(*install, *torch)
        _run(*install, "--requirement", str(pins))
        made.write_text(version, encoding="utf-8")
    if peer == OURS:
        _run(*install, "--no-deps", "--force-reinstall", str(ROOT))
    return python


def prepare(system: System, python: Path, *, checkpoint: Path, folder: Path, texts: Sequence[str]) -> None:
    """Have a system make what it serves from a checkpoint, unless it has.

    Args:
        folder: For its files.
        texts: For those that calibrate.
    """
    made = folder / "made"
    script = PEERS / f"{system.peer}.py"
    parts = [script, PEERS / "protocol.py", PEERS / f"{system.peer}.txt", checkpoint / "config.json"]
    version = hashlib.sha256(b"".join(map(Path.read_bytes, parts)) + json.dumps(list(texts)).encode()).hexdigest()
    if made.is_file() and made.read_text(encoding="utf-8") == version:
        return
    folder.mkdir(parents=True, exist_ok=True)
    given = folder / "texts.json"
    given.write_text(json.dumps(list(texts)), encoding="utf-8")
    _run(str(python), str(script), "prepare", system.variant, str(checkpoint), str(folder), str(given))
    made.write_text(version, encoding="utf-8")


class Running:
    """A system in its process, which is stopped whenever another one runs: nothing of it turns or polls then."""

    def __init__(self, system: System, python: Path, *, checkpoint: Path, folder: Path, threads: int) -> None:
        """Start it and wait until it can embed.

        Raises:
            SystemFailedError: It cannot.
        """
        script, begin = str(PEERS / f"{system.peer}.py"), time.perf_counter()
        self._process = subprocess.Popen(
            [str(python), script, "serve", system.variant, str(checkpoint), str(folder), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | _ALONE | {"OMP_NUM_THREADS": str(threads)},
        )
        try:
            self.versions: dict[str, str] = self._answer()["versions"]
        except BaseException:
            self.close()
            raise
        self.seconds_to_first = time.perf_counter() - begin
        self._signal(signal.SIGSTOP)

    def run(self, calls: Sequence[Sequence[str]], *, output: Path | None = None) -> Any:
        """Seconds of each call; see `peers/protocol.py`."""
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
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        limit = threading.Timer(_PATIENCE_S, self._process.kill)
        limit.start()
        try:
            line = self._process.stdout.readline()
        finally:
            limit.cancel()
        answer = json.loads(line) if line else {"error": f"its process ended with {self._process.wait()}"}
        if "error" in answer:
            raise SystemFailedError(answer["error"])
        return answer

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=_STANDARD_ERROR, env=os.environ | _ALONE)
