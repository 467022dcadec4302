import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import transformers
from click.testing import CliRunner, Result

from encort.runtime.cli.main import group, main
from encort.runtime.common.errors import CheckpointError, DatasetError, InputError, MissingExtraError, OutputExistsError
from encort.training.commands import TASKS
from encort.training.report import TrainingReport
from encort.training.settings import TrainingSettings
from encort.training.tasks.base import TrainingTask

ROOT = Path(__file__).parents[2]


def train(*arguments: Any, task: str = "text-classification") -> Result:
    """Run the command in this process. Its exceptions are raised, but for exits."""
    result = CliRunner().invoke(group, ["train", task, *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_train(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "encort", "train", "text-classification", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


@pytest.fixture
def arguments(tiny_encoder: Path, tables: tuple[Path, Path], tmp_path: Path) -> list[Any]:
    """Return the required options."""
    return ["--model", tiny_encoder, "--train", tables[0], "--output", tmp_path / "checkpoint"]


# Help.


@pytest.mark.parametrize("task", TASKS)
def test_help_lists_every_option(task: str) -> None:
    result = train("--help", task=task)
    assert result.exit_code == 0
    assert TASKS[task][1] in result.output
    options = set(re.findall(r"--([a-z0-9-]+)", result.output))
    assert options >= {field.name.replace("_", "-") for field in dataclasses.fields(TrainingSettings)}
    assert options >= {"model", "from-scratch", "train", "validation", "test", "column", "header", "output", "resume"}


def test_the_listing_has_every_task_with_its_help_line() -> None:
    listing = " ".join(CliRunner().invoke(group, ["train", "--help"], terminal_width=200).output.split())
    for name, (_, line) in TASKS.items():
        assert name in listing
        assert line in listing


@pytest.mark.parametrize("task", TASKS)
def test_every_command_has_the_class_of_its_task(task: str) -> None:
    module, name = TASKS[task][0].split(":")
    made = getattr(import_module(f"encort.training.tasks.{module}"), name)()
    assert isinstance(made, TrainingTask)
    assert made.name == task
    assert made.metric


# What reaches `train`.


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return `given(*arguments, task=)`, the arguments with which the command calls `train`. Nothing is trained."""
    seen: dict[str, Any] = {}

    def remember(task: TrainingTask, **options: Any) -> TrainingReport:
        seen.update(options, task=task)
        return TrainingReport(
            task=task.name,
            model="m",
            checkpoint="체크",
            metrics={"validation": {"accuracy": 1.0}},
            by_label={},
            confusion={},
            rows={"train": 2},
            label_counts={},
            labels=["a"],
            seconds=1.0,
            history=[{"loss": 1.0}],
            settings=options["settings"],
        )

    def run(*arguments: Any, task: str = "text-classification") -> dict[str, Any]:
        result = train("--model", "m", "--train", "t.csv", "--output", "o", *arguments, task=task)
        assert result.exit_code == 0, result.output
        return {**seen, "stdout": result.stdout}

    monkeypatch.setattr("encort.training.train.train", remember)
    return run


OPTIONS: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 30,
    "gradient_accumulation": 3,
    "learning_rate": 0.004,
    "weight_decay": 0.3,
    "schedule": "cosine",
    "warmup_ratio": 0.4,
    "dropout": 0.2,
    "max_length": 7,
    "save_steps": 50,
    "patience": 6,
    "bf16": False,
    "seed": 5,
}


def flags(options: Any) -> Iterator[Any]:
    for name, value in options.items():
        yield from [f"--no-{name}"] if value is False else [f"--{name.replace('_', '-')}", value]


@pytest.mark.parametrize("task", TASKS)
def test_options_reach_the_settings(task: str, given: Callable[..., dict[str, Any]]) -> None:
    received = given(*flags(OPTIONS), task=task)
    assert received["settings"] == TrainingSettings(**OPTIONS)
    assert OPTIONS.keys() == {field.name for field in dataclasses.fields(TrainingSettings)}
    assert type(received["task"]).__name__ == TASKS[task][0].split(":")[1]


def test_weights_of_penalties_reach_the_task(given: Callable[..., dict[str, Any]]) -> None:
    received = given("--query-flops", 0.5, task="sparse-embedding")
    assert received["task"].options == {"query_flops": 0.5, "document_flops": 3e-5}


def test_options_that_are_not_given_keep_their_defaults(given: Callable[..., dict[str, Any]]) -> None:
    received = given()
    assert received["settings"] == TrainingSettings()
    assert (received["validation"], received["test"], received["header"], received["columns"]) == (None, None, None, {})
    assert (received["from_scratch"], received["overwrite"], received["resume"]) == (False, False, False)
    assert (received["model"], received["train"], received["output"]) == ("m", "t.csv", "o")
    assert not received["config_changes"]


def test_data_and_output_options_reach_train(given: Callable[..., dict[str, Any]]) -> None:
    received = given(
        *("--validation", "v.csv", "--test", "folder", "--header", "id,said,meant"),
        *("--column", "text=said", "--column", "label=meant=x"),
        *("--from-scratch", "--overwrite", "--resume", "--bf16"),
    )
    assert (received["validation"], received["test"]) == ("v.csv", "folder")
    assert received["header"] == ["id", "said", "meant"]
    assert received["columns"] == {"text": "said", "label": "meant=x"}
    assert (received["from_scratch"], received["overwrite"], received["resume"]) == (True, True, True)
    assert received["settings"].bf16 is True


def test_values_of_set_are_json_or_text(given: Callable[..., dict[str, Any]]) -> None:
    received = given("--set", "num_hidden_layers=2", "--set", "hidden_act=relu", "--set", "tie=true")
    assert received["config_changes"] == {"num_hidden_layers": 2, "hidden_act": "relu", "tie": True}


def test_stdout_is_the_summary_on_one_line(given: Callable[..., dict[str, Any]]) -> None:
    stdout = given()["stdout"]
    assert stdout.count("\n") == 1
    assert json.loads(stdout) == {
        "checkpoint": "체크",
        "metrics": {"validation": {"accuracy": 1.0}},
        "rows": {"train": 2},
        "seconds": 1.0,
    }
    assert "체크" in stdout


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_only_the_first_process_prints_the_summary(
    rank: str, lines: int, given: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    assert given()["stdout"].count("\n") == lines


# Whole runs.


def test_without_a_terminal_stdout_is_one_json_object_and_stderr_has_a_line_per_evaluation(
    arguments: list[Any], tables: tuple[Path, Path], tmp_path: Path
) -> None:
    finished = run_train(*arguments, "--validation", tables[1], "--test", tables[1], "--epochs", 2, "--batch-size", 30)
    assert finished.returncode == 0, finished.stderr
    steps = [re.fullmatch(r"step (\d+) of 8: accuracy [01]\.\d{3}", line) for line in finished.stderr.splitlines()]
    assert [step and step[1] for step in steps] == ["4", "8"]
    assert finished.stdout.count("\n") == 1
    report = json.loads(finished.stdout)
    assert report.keys() == {"checkpoint", "metrics", "rows", "seconds"}
    assert report["rows"] == {"train": 120, "validation": 12, "test": 12}
    assert report["metrics"].keys() == {"validation", "test"}
    assert report["metrics"]["test"].keys() == {"accuracy", "macro_f1"}
    assert report["checkpoint"] == str(tmp_path / "checkpoint")


def test_stdout_is_one_json_object_when_transformers_logs_only_errors(arguments: list[Any]) -> None:
    transformers.logging.set_verbosity_error()
    try:
        assert json.loads(train(*arguments, "--epochs", 1, "--batch-size", 20).stdout)["rows"]["train"] == 108
    finally:
        transformers.logging.set_verbosity_warning()


def test_a_schedule_reaches_the_report(arguments: list[Any], tables: tuple[Path, Path], tmp_path: Path) -> None:
    train(*arguments, "--validation", tables[1], "--epochs", 1, "--batch-size", 40, "--schedule", "cosine")
    assert json.loads((tmp_path / "checkpoint" / "training.json").read_text())["settings"]["schedule"] == "cosine"


# Errors.


def test_an_error_is_one_line_on_stderr_and_an_exit_code(
    arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.csv"
    command = ["encort", "train", "text-classification", *arguments, "--train", missing]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == DatasetError.exit_code
    assert capsys.readouterr() == ("", f"encort: there is no file {missing}\n")


def test_an_existing_output_needs_overwrite(arguments: list[Any], trained: Any) -> None:
    with pytest.raises(OutputExistsError, match="--overwrite"):
        train(*arguments, "--output", trained.folder)


def test_settings_out_of_range_are_all_listed(arguments: list[Any]) -> None:
    with pytest.raises(InputError, match=r"epochs must be .*; dropout must be"):
        train(*arguments, "--epochs", 0, "--dropout", 2)


def test_an_unknown_schedule_is_wrong_usage(arguments: list[Any]) -> None:
    result = train(*arguments, "--schedule", "steps")
    assert result.exit_code == 2
    assert "'linear', 'cosine', 'constant_with_warmup'" in result.stderr


@pytest.mark.parametrize("option", ["--column", "--set"])
def test_an_option_without_an_equals_sign_is_refused_with_an_example(option: str, arguments: list[Any]) -> None:
    with pytest.raises(InputError, match=rf"{option} 'words' is not \w+=\w+, such as \w+=\w+"):
        train(*arguments, option, "words")


def test_model_settings_of_loaded_weights_cannot_be_changed(arguments: list[Any]) -> None:
    with pytest.raises(CheckpointError, match="pass --from-scratch"):
        train(*arguments, "--set", "num_hidden_layers=2")


@pytest.mark.parametrize("missing", ["--model", "--train", "--output"])
def test_a_missing_option_exits_with_2(missing: str, arguments: list[Any]) -> None:
    index = arguments.index(missing)
    result = train(*arguments[:index], *arguments[index + 2 :])
    assert result.exit_code == 2
    assert f"Missing option '{missing}'" in result.stderr


# Packages.


def test_missing_packages_are_refused_with_the_pip_command(
    arguments: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encort.runtime.common.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r'encort train needs.*pip install "encort\[train\]"'):
        train(*arguments)


def test_the_train_extra_installs_every_imported_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    installed = {re.split(r"[^\w-]", requirement)[0].replace("scikit-learn", "sklearn") for requirement in required}
    text = "\n".join(file.read_text() for file in (ROOT / "training").rglob("*.py"))
    imported = set(re.findall(r"^ *(?:import|from) (\w+)", text, re.MULTILINE)) - set(sys.stdlib_module_names)
    # scikit-learn installs scipy.
    assert imported - {"encort", "scipy"} <= installed
