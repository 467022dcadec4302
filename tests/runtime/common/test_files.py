"""Kind and size of a file are known before it is read, and JSON means the same to every reader."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from encort.runtime.common.files import check_regular, open_regular, parse_json, read_bytes


def test_a_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link", largest=7) == b"content"
    check_regular(tmp_path / "link", largest=7)


@pytest.mark.parametrize("name", ["pipe", "link", "folder", "/dev/null", "/dev/zero"])
def test_what_is_not_a_file_is_refused_without_waiting(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"is a (folder|pipe, socket or device), not a file"):
        read_bytes(tmp_path / name, largest=10)
    with pytest.raises(OSError, match="not a file"):
        check_regular(tmp_path / name)
    with pytest.raises(OSError, match="not a file"), open_regular(tmp_path / name):
        pass


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(OSError, match="it has 7 bytes, and files of this kind have at most 6"):
        read_bytes(tmp_path / "file", largest=6)
    with pytest.raises(OSError, match="at most 6"):
        check_regular(tmp_path / "file", largest=6)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc")
def test_a_file_whose_size_is_unknown_is_limited_too() -> None:
    assert Path("/proc/self/maps").stat().st_size == 0
    with pytest.raises(OSError, match="at most 10"):
        read_bytes(Path("/proc/self/maps"), largest=10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "the key 'c' is there twice"),
        ("[" * 100_000, "too deeply"),
        ("{", "Expecting"),
        (b"\xff", "utf-8"),
        ("1" * 5_000, "digits"),
    ],
)
def test_json_that_readers_understand_differently_is_refused(content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(content)


def test_json_is_parsed() -> None:
    assert parse_json(b'{"a": [1, {"b": null}], "c": {"a": 2}}') == {"a": [1, {"b": None}], "c": {"a": 2}}


def test_a_key_that_is_there_twice_is_found_in_linear_time() -> None:
    keys = ",".join(f'"{number}":0' for number in [*range(300_000), 299_999])
    start = time.perf_counter()
    with pytest.raises(ValueError, match="the key '299999' is there twice"):
        parse_json(f"{{{keys}}}")
    assert time.perf_counter() - start < 20
