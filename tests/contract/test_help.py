"""Every command shows its help without loading heavy packages."""

import subprocess
import sys

import pytest

from encort.runtime.cli.main import COMMANDS

SCREENS = [[], *([name] for name in COMMANDS), ["train", "text-classification"]]


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: " ".join(screen) or "encort")
def test_help_imports_no_heavy_package(screen: list[str]) -> None:
    code = (
        "import sys; from encort.runtime.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'numpy', 'onnxruntime', 'tokenizers', 'torch', 'transformers', 'onnx_ir'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *screen, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage:")
    assert "\\b" not in done.stdout  # click's mark for examples, which it must not print


def test_the_listing_has_every_command_with_its_help_line() -> None:
    from click.testing import CliRunner

    from encort.runtime.cli.main import group

    listing = CliRunner().invoke(group, ["--help"]).output
    for name, (_, line) in COMMANDS.items():
        assert f"{name} " in listing
        assert line in listing


def test_an_unknown_command_is_a_usage_error() -> None:
    done = subprocess.run([sys.executable, "-m", "encort", "serv"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
