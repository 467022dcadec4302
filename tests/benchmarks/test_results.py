import json
from collections.abc import Callable
from pathlib import Path

import pytest

from encort.benchmarks.results import FOLDER, Race, read, save
from encort.runtime.common.errors import InputError


def test_a_race_is_read_as_it_was_saved(make_race: Callable[..., Race], tmp_path: Path) -> None:
    race = make_race()
    assert read(save(race, tmp_path / "new" / race.file_name)) == race
    assert race.file_name == "race-minilm-2026-11-26T1000-test-tm-cpu.json"


def test_every_result_of_the_project_can_be_read() -> None:
    files = sorted(FOLDER.glob("*.json"))
    assert files
    for file in files:
        assert isinstance(read(file), Race)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"kind": "speech"}', '{"kind": "race", "command": 3}'])
def test_a_file_that_is_no_result_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(InputError, match=r"result\.json holds no result"):
        read(tmp_path / "result.json")


def test_an_unknown_field_is_refused(make_race: Callable[..., Race], tmp_path: Path) -> None:
    file = save(make_race(), tmp_path / "race.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"winner": "us"}))
    with pytest.raises(InputError, match="unknown winner"):
        read(file)
