"""A folder is complete or absent, and only an earlier output is replaced."""

from pathlib import Path
from typing import Any

import pytest

from encort.runtime.common.errors import InputError, OutputExistsError
from encort.runtime.common.folders import check_replaceable, is_missing_folder, new_folder

MARKER = "encort.json"


def make(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def write(folder: Path, content: str = "new", **options: Any) -> None:
    with new_folder(folder, marker=MARKER, **options) as temporary:
        (temporary / MARKER).write_text(content)


def write_and_fail(folder: Path, error: type[BaseException], **options: Any) -> None:
    with new_folder(folder, marker=MARKER, **options) as temporary:
        (temporary / "half").write_text("written")
        raise error


def test_a_new_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", marker=MARKER) as temporary:
        (temporary / MARKER).write_text("new")
        assert temporary.parent == tmp_path
        assert not (tmp_path / "out").exists()
    assert contents(tmp_path / "out") == {MARKER: "new"}
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_missing_parents_are_created(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "out")
    assert contents(tmp_path / "a" / "b" / "out") == {MARKER: "new"}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    write(make(tmp_path / "out"))
    assert contents(tmp_path / "out") == {MARKER: "new"}


def test_an_earlier_output_is_replaced_only_when_asked(tmp_path: Path) -> None:
    old = make(tmp_path / "out", encort_json="old", extra="old")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write(old)
    assert contents(old) == {MARKER: "old", "extra": "old"}
    write(old, overwrite=True)
    assert contents(old) == {MARKER: "new"}
    assert list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["folder without the marker", "file", "link to an output", "dangling link"])
def test_other_files_and_folders_are_never_replaced(tmp_path: Path, kind: str, overwrite: bool) -> None:
    out = tmp_path / "out"
    if kind == "folder without the marker":
        make(out, thesis="precious")
    elif kind == "file":
        out.write_text("precious")
    elif kind == "link to an output":
        out.symlink_to(make(tmp_path / "target", encort_json="old"))
    else:
        out.symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputExistsError, match="will not be replaced"):
        check_replaceable(out, marker=MARKER, overwrite=overwrite)
    with pytest.raises(OutputExistsError):
        write(out, overwrite=overwrite)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        write_and_fail(tmp_path / "out", error)
    assert list(tmp_path.iterdir()) == []


def test_an_error_keeps_an_earlier_output(tmp_path: Path) -> None:
    old = make(tmp_path / "out", encort_json="old")
    with pytest.raises(KeyError):
        write_and_fail(old, KeyError, overwrite=True)
    assert contents(old) == {MARKER: "old"}
    assert list(tmp_path.iterdir()) == [old]


def test_a_folder_that_appeared_meanwhile_is_not_deleted(tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError), new_folder(tmp_path / "out", marker=MARKER):
        make(tmp_path / "out", thesis="precious")
    assert contents(tmp_path / "out") == {"thesis": "precious"}


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("there", False),
        ("./there", False),
        ("./nowhere", True),
        ("../nowhere", True),
        ("/nowhere", True),
        ("~/nowhere", True),
        ("build/demo/nowhere", True),
        ("file.txt", True),
        ("bert-base-uncased", False),
        ("BAAI/bge-small-en-v1.5", False),
    ],
)
def test_a_missing_folder_is_not_taken_for_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, missing: bool
) -> None:
    make(tmp_path / "there")
    (tmp_path / "file.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert is_missing_folder(name) is missing


def test_the_partial_folder_of_a_killed_process_goes_with_the_next_output(tmp_path: Path) -> None:
    make(tmp_path / f".out.{'0' * 32}.partial", model_onnx="half")
    write(tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_path_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the path is not UTF-8"):
        check_replaceable(tmp_path / "o\udcff", marker="m", overwrite=False)
