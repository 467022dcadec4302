import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from encort.benchmarks.race import tables
from encort.benchmarks.race.tables import brief_table, race_table, update_tables
from encort.benchmarks.results import Check, Outcome, Race, save

MakeRace = Callable[..., Race]

_DOCUMENTS = [Path(tables.__file__).resolve().parents[2] / name for name in ("README.md", "docs/benchmarks.md")]


def system(name: str, precision: str, seconds: list[float], **values: Any) -> Outcome:
    return Outcome(
        name=name,
        key=name,
        precision=precision,
        seconds=seconds,
        grid={"1 x 16": [0.004]},
        load_seconds=1.5,
        peak_mib=100,
        **values,
    )


def test_a_race_has_one_row_per_system_the_slowest_first(make_race: MakeRace) -> None:
    race = make_race(
        system("encort", "fp32", [2.0, 2.0, 2.0], cosine_mean=1.0, cosine_min=1.0, spearman=82.03),
        system("Snail", "fp32", [5.0, 8.0, 5.0]),
        Outcome(name="Broken", key="broken", precision="int8", error="no | kernel\nmore"),
        product=[1.0, 0.9, 1.0],
    )
    about, _, header, _, snail, ours, limit, broken, *calls = race_table(race).splitlines()
    assert about.startswith(
        "minilm, 10 texts (made-up texts), 1000 tokens, 2 threads per system, tokenization included"
    )
    assert "Medians of 3 rounds, systems in turn." in about
    assert "speedup of encort fp32" in header
    assert snail.startswith("| Snail | fp32 | 5.00 (5.00-8.00) | 200 | 2.50x (2.50-4.00) |")
    assert ours.startswith("| encort | fp32 | 2.00 (2.00-2.00) | 500 |  | 1.00000 / 1.000 | 82.03 | 1.5 | 100 |")
    assert limit.startswith("| limit: matrix product | fp32 | 0.90 at best | 1,111 | 0.45x |")
    assert broken.startswith("| Broken | int8 | failed: no &#124; kernel |")
    assert "| Snail | fp32 | 4.00 |" in calls
    assert race.command in calls[-1]


def test_a_brief_table_has_no_limits_and_no_failures(make_race: MakeRace) -> None:
    race = make_race(
        system("encort", "fp32", [2.0, 2.0, 2.0], cosine_mean=1.0, cosine_min=1.0),
        system("Snail", "fp32", [5.0, 8.0, 5.0], cosine_mean=0.99871, cosine_min=0.9),
        replace(system("Snail, asleep", "fp32", [9.0, 8.0, 9.0]), key="Snail:asleep"),
        Outcome(name="Broken", key="broken", precision="int8", error="no kernel"),
    )
    _, _, _, _, *rows, _, _ = brief_table(race).splitlines()
    assert rows == [
        "| Snail | fp32 | 200 | 2.50x (2.50-4.00) | 0.9987 | 1.5 s | 100 MiB |",
        "| **encort** | fp32 | 500 |  | 1.0000 | 1.5 s | 100 MiB |",
    ]


def test_a_race_in_which_all_systems_failed_has_a_table(make_race: MakeRace) -> None:
    race = make_race(Outcome(name="Broken", key="broken", precision="int8", error=""), product=[])
    assert "| Broken | int8 |" in race_table(race)


def test_a_race_has_a_table_of_its_checks(make_race: MakeRace) -> None:
    checks = [Check(name="least cosine", value=0.99, least=0.999), Check(name="flips", value=0, most=1)]
    table = race_table(replace(make_race(system("encort", "fp16", [2.0, 2.0, 2.0])), checks=checks))
    assert "| least cosine | 0.99 | at least 0.999 | **no** |" in table
    assert "| flips | 0 | at most 1 | yes |" in table


def test_a_document_gets_its_tables_and_keeps_the_rest(make_race: MakeRace, tmp_path: Path) -> None:
    save(make_race(system("encort", "fp32", [2.0, 2.0, 2.0])), tmp_path / "a.json")
    text = "before\n<!-- race: a.json -->\nstale\n<!-- end -->\nafter\n"
    once = update_tables(text, tmp_path)
    assert once.startswith("before\n<!-- race: a.json -->\nminilm, 10 texts (")
    assert once.endswith("\n<!-- end -->\nafter\n")
    assert "stale" not in once
    assert update_tables(once, tmp_path) == once


def test_the_tables_of_the_documents_are_those_of_the_results() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "encort.benchmarks.race.tables", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    marks = [tables._MARK.search(file.read_text(encoding="utf-8")) for file in _DOCUMENTS]
    assert [mark["kind"] for mark in marks if mark] == ["brief", "race"]


def test_a_stale_table_is_reported_and_rewritten(
    make_race: MakeRace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(make_race(system("encort", "fp32", [2.0, 2.0, 2.0])), tmp_path / "a.json")
    (tmp_path / "docs").mkdir()
    readme = tmp_path / "README.md"
    readme.write_text("<!-- race: a.json -->\nstale\n<!-- end -->\n")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables.update_tables, "__defaults__", (tmp_path,))
    checked = CliRunner().invoke(tables.main, ["--check"])
    assert checked.exit_code == 1
    assert "README.md" in checked.output
    assert "stale" in readme.read_text()
    assert CliRunner().invoke(tables.main, []).exit_code == 0
    assert CliRunner().invoke(tables.main, ["--check"]).exit_code == 0
