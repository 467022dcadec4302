import json

import pytest

from encort.benchmarks.results import read, save
from encort.runtime.common.errors import InputError


def test_a_race_is_read_as_it_was_saved(make_race, tmp_path):
    race = make_race()
    assert read(save(race, tmp_path / "new" / race.file_name)) == race
    assert race.file_name == "race-minilm-2026-11-26T1000-test-tm-cpu.json"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"kind": "speech"}', '{"kind": "race", "command": 3}'])
def test_anything_else_is_refused(content, tmp_path):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(InputError, match=r"result\.json holds no result"):
        read(tmp_path / "result.json")


def test_a_field_that_is_unknown_is_refused(make_race, tmp_path):
    file = save(make_race(), tmp_path / "race.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"winner": "us"}))
    with pytest.raises(InputError, match="unknown winner"):
        read(file)
