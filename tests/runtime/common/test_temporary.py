"""Leftovers of processes that are gone are removed; files and folders of live processes are not."""

import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from encort.runtime.common import temporary
from encort.runtime.common.folders import check_writable, new_folder
from encort.runtime.common.temporary import remove_leftovers, temporary_beside

pytestmark = pytest.mark.skipif(temporary.fcntl is None, reason="this system has no flock")

_HOLD = """
import sys, time
from pathlib import Path
from encort.runtime.common.temporary import temporary_beside
with temporary_beside(Path(sys.argv[1]), Path.mkdir) as folder:
    (folder / "model.onnx").write_text("half")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "my [1].bundle"


def leftover(output: Path, ending: str = ".partial", *, key: str | None = None) -> Path:
    folder = output.with_name(f".{output.name}.{key or uuid.uuid4().hex}{ending}")
    folder.mkdir()
    (folder / "model.onnx").write_text(ending)
    return folder


def test_a_live_process_keeps_its_folder_and_a_killed_one_leaves_a_leftover(output: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        remove_leftovers(output)
        assert (folder / "model.onnx").read_text() == "half"
        process.send_signal(signal.SIGKILL)
    assert folder.is_dir()
    with temporary_beside(output, Path.mkdir):
        assert not folder.exists()


@pytest.mark.parametrize("name", ["a" * 213, "a" * 214, "b" * 255, "안" * 85])
def test_every_name_that_the_file_system_allows_can_be_written(tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    check_writable(output)
    with new_folder(output, marker="marker") as folder:
        (folder / "marker").touch()
    with new_folder(output, marker="marker", overwrite=True) as folder:
        (folder / "marker").touch()
    assert list(tmp_path.iterdir()) == [output]


def test_leftovers_of_outputs_with_long_names_are_told_apart(tmp_path: Path) -> None:
    first, second = (tmp_path / (character * 255) for character in "ab")
    with temporary_beside(first, Path.mkdir) as temporary_folder:
        leftovers = [Path(shutil.copytree(temporary_folder, f"{str(temporary_folder)[:-10]}ab.partial"))]
        leftovers.append(Path(shutil.copytree(temporary_folder, f"{str(temporary_folder)[:-10]}cd.partial")))
    remove_leftovers(second)
    assert all(folder.exists() for folder in leftovers)
    remove_leftovers(first)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("create", [Path.mkdir, Path.touch])
def test_another_writer_in_this_process_is_alive_too(output: Path, create: Callable[[Path], None]) -> None:
    with temporary_beside(output, create) as first, temporary_beside(output, create) as second:
        assert first.exists()
        assert second.exists()
    assert list(output.parent.iterdir()) == []


def test_files_and_folders_of_other_outputs_stay(output: Path) -> None:
    others = [
        leftover(output.with_name("my 1.bundle")),
        leftover(output.with_name(f"{output.name}.x")),
        output.with_name(f".{output.name}.mine.partial"),
    ]
    others[-1].write_text("a name that encort does not give")
    remove_leftovers(output)
    assert sorted(output.parent.iterdir()) == sorted(others)


def test_a_link_is_removed_and_its_target_stays(output: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    link = output.with_name(f".{output.name}.{uuid.uuid4().hex}.old")
    link.symlink_to(target)
    remove_leftovers(output)
    assert list(tmp_path.iterdir()) == [target]


def test_an_output_that_was_half_replaced_is_restored(output: Path) -> None:
    key = uuid.uuid4().hex
    leftover(output, ".partial", key=key)
    leftover(output, ".old", key=key)
    remove_leftovers(output)
    assert list(output.parent.iterdir()) == [output]
    assert (output / "model.onnx").read_text() == ".old"


def test_the_only_version_of_an_output_is_restored(output: Path) -> None:
    leftover(output, ".old")
    remove_leftovers(output)
    assert list(output.parent.iterdir()) == [output]
    assert (output / "model.onnx").read_text() == ".old"


def test_an_output_that_was_replaced_loses_its_earlier_version(output: Path) -> None:
    output.mkdir()
    leftover(output, ".old")
    remove_leftovers(output)
    assert list(output.parent.iterdir()) == [output]


def test_a_live_replacement_is_not_disturbed(output: Path) -> None:
    with temporary_beside(output, Path.mkdir) as folder:
        old = folder.with_suffix(".old")
        old.mkdir()
        remove_leftovers(output)
        assert folder.is_dir()
        assert old.is_dir()


def test_a_folder_that_is_removed_before_it_is_locked_is_made_again(output: Path) -> None:
    def create(folder: Path) -> None:
        folder.mkdir()
        if not made:
            remove_leftovers(output)
        made.append(folder)

    made: list[Path] = []
    with temporary_beside(output, create) as folder:
        assert made == [made[0], folder]
        assert not made[0].exists()
        assert folder.is_dir()


@pytest.mark.parametrize("missing", ["no flock on this disk", "no flock on this system"])
def test_without_locks_leftovers_stay(output: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def refuse(*_: int) -> None:
        raise OSError(missing)

    if missing.endswith("disk"):
        monkeypatch.setattr(temporary.fcntl, "flock", refuse)
    else:
        monkeypatch.setattr(temporary, "fcntl", None)
    other = leftover(output)
    with temporary_beside(output, Path.mkdir) as folder:
        assert other.is_dir()
        assert folder.is_dir()
    assert list(output.parent.iterdir()) == [other]
