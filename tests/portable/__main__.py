"""Check that other libraries load the portable graph of bundles and give the results of eager transformers.

Each library has an environment of its own in the work folder, which is made once: a virtual environment with Optimum
and sentence-transformers, and a Node folder with transformers.js.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import click

HERE = Path(__file__).parent


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--only", type=click.Choice(["optimum", "transformers.js"]), help="Check this library alone.")
def main(folder: Path, only: str | None) -> None:
    """Export tiny bundles into FOLDER, and run them in other libraries."""
    from tests.portable.bundles import write_bundles

    bundles = folder.absolute() / "bundles"
    shutil.rmtree(bundles, ignore_errors=True)
    write_bundles(bundles)
    if only != "transformers.js":
        python = _python_environment(folder.absolute() / "optimum")
        _run(python, HERE / "check_optimum.py", bundles)
    if only != "optimum":
        _run("node", _node_script(folder.absolute() / "node"), bundles)


def _python_environment(folder: Path) -> Path:
    pins = HERE / "optimum.txt"
    python = folder / "bin" / "python"
    if _is_new(folder, pins):
        _run(sys.executable, "-m", "venv", "--clear", folder)
        install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
        # First and alone: once it is installed, no other package brings another build of it.
        torch = [line for line in pins.read_text(encoding="utf-8").split() if line.startswith("torch==")]
        _run(*install, *torch)
        _run(*install, "--requirement", pins)
        _mark(folder, pins)
    return python


def _node_script(folder: Path) -> Path:
    """Return the script in a folder with the packages that it imports; Node looks for them beside the script."""
    pins = HERE / "package.json"
    if _is_new(folder, pins):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(pins, folder)
        # Without scripts: that of onnxruntime-node would download its libraries for CUDA.
        _run("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", folder)
        _mark(folder, pins)
    return Path(shutil.copy(HERE / "check_transformers_js.mjs", folder))


def _is_new(folder: Path, pins: Path) -> bool:
    """Return whether the environment is missing, or was made from other pins."""
    made = folder / "made"
    return not made.is_file() or made.read_text(encoding="utf-8") != _version(pins)


def _mark(folder: Path, pins: Path) -> None:
    (folder / "made").write_text(_version(pins), encoding="utf-8")


def _version(pins: Path) -> str:
    return hashlib.sha256(pins.read_bytes()).hexdigest()


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
