"""The command in a real shell: closed streams, pipes, other locales, paths that cannot be, full disks."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from encort.runtime.cli.streams import decode_argument
from encort.runtime.common.errors import InputError
from encort.runtime.common.folders import check_file_writable, check_writable

Shell = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shell(tmp_path: Path, classifier_bundle: Path) -> Shell:
    """`shell("encort predict BUNDLE hello >&-")` runs a line in bash, in `tmp_path`, with three files in it."""
    (tmp_path / "in.txt").write_text("hello\nmy card\n", encoding="utf-8")
    (tmp_path / "folder.jsonl").mkdir()

    def run(line: str) -> "subprocess.CompletedProcess[str]":
        line = line.replace("encort", f"{sys.executable} -m encort", 1).replace("BUNDLE", str(classifier_bundle))
        return subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
        )

    return run


def labels(done: "subprocess.CompletedProcess[str]") -> int:
    """Return the number of records in the output."""
    return done.stdout.count('"label"')


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("encort predict BUNDLE <&-", "standard input is closed"),
        ("encort predict BUNDLE hello >&-", "standard output is closed"),
        ("encort inspect BUNDLE >&-", "standard output is closed"),
        ("encort predict BUNDLE --input folder.jsonl", "a job over many files writes a folder"),
        ("encort predict BUNDLE hello --output folder.jsonl", "folder.jsonl is a folder"),
        ("encort predict BUNDLE hello --output in.txt/out.jsonl", "there is no folder in.txt"),
        ("encort predict BUNDLE --input $(printf 'x%.0s' {1..300})", "File name too long"),
        ("encort predict BUNDLE hello > /dev/full", "No space left on device"),
    ],
)
def test_what_cannot_be_done_is_one_line(shell: Shell, line: str, message: str) -> None:
    done = shell(line)
    assert done.returncode in (1, 3)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 400


@pytest.mark.parametrize(
    ("line", "records"),
    [
        ("encort predict BUNDLE < /dev/null", 0),
        ("encort predict BUNDLE --input /dev/null", 0),
        ("encort predict BUNDLE --input <(cat in.txt)", 2),
        ("cat in.txt | encort predict BUNDLE --input /dev/stdin", 2),
        ("LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0 encort predict BUNDLE 안녕 --output -", 1),
        ("encort predict BUNDLE hello <&- 2>&-", 1),
    ],
)
def test_other_inputs_and_locales_give_records(shell: Shell, line: str, records: int) -> None:
    done = shell(line)
    assert (done.returncode, labels(done), done.stderr) == (0, records, "")


def test_a_reader_that_leaves_early_ends_the_command_quietly(shell: Shell) -> None:
    done = shell("encort predict BUNDLE --input <(yes 'my card') | head -n 1")
    assert (labels(done), done.stderr) == (1, "")


def test_a_file_does_not_get_what_libraries_print_on_a_closed_stream(shell: Shell, tmp_path: Path) -> None:
    shell("encort predict BUNDLE hello --output out.jsonl <&- >&- 2>&-")
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8").startswith('{"label"')


@pytest.mark.parametrize(
    "line",
    [
        "encort export nothing --output in.txt/x.bundle",
        "encort train text-classification --train no.csv --model no --output in.txt/x",
        "encort bench BUNDLE --output in.txt/x.json",
    ],
)
def test_every_command_checks_its_output_first(shell: Shell, line: str) -> None:
    done = shell(line)
    assert done.returncode == 3
    assert "cannot be written: Not a directory" in done.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write")
@pytest.mark.parametrize("output", ["/proc/x.bundle", "/proc/a/b/x.bundle"])
def test_a_folder_that_cannot_be_made_is_refused(output: str) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        check_writable(Path(output))


def test_checking_an_output_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b" / "x.bundle")
    check_file_writable(tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="File name too long"):
        check_writable(tmp_path / ("x" * 256))


def test_an_argument_of_another_locale_is_read_as_utf_8() -> None:
    undecoded = "안녕".encode().decode("ascii", errors="surrogateescape")
    assert decode_argument(undecoded) == "안녕" or os.fsencode(undecoded) != "안녕".encode()
    assert decode_argument("é") == "é"
