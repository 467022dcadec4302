import json
import subprocess
import sys

import pytest
import transformers
from click.testing import CliRunner

from encort.runtime.cli import group, main
from encort.runtime.errors import DatasetError, InputError, MissingExtraError, OutputExistsError


def train(*arguments):
    """Run the command in this process; an error of encort's own is raised."""
    result = CliRunner().invoke(group, ["train", "text-classification", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_train(*arguments):
    command = [sys.executable, "-m", "encort", "train", "text-classification", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


@pytest.fixture
def arguments(tiny_encoder, tables, tmp_path):
    """Everything that must be given."""
    return ["--model", tiny_encoder, "--train", tables[0], "--output", tmp_path / "checkpoint"]


def test_stdout_is_one_json_object(arguments, tables, tmp_path):
    finished = run_train(*arguments, "--validation", tables[1], "--epochs", 1, "--batch-size", 20)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("\n") == 1
    report = json.loads(finished.stdout)
    assert report.keys() == {"checkpoint", "metrics", "train_rows", "validation_rows", "seconds"}
    assert report["metrics"].keys() == {"accuracy", "macro_f1", "loss"}
    assert report["checkpoint"] == str(tmp_path / "checkpoint")


def test_stdout_stays_one_json_object_when_transformers_is_told_to_be_quiet(arguments):
    transformers.logging.set_verbosity_error()
    try:
        assert json.loads(train(*arguments, "--epochs", 1, "--batch-size", 20).stdout)["train_rows"] == 108
    finally:
        transformers.logging.set_verbosity_warning()


def test_an_error_is_one_line_on_stderr_and_an_exit_code(arguments, tmp_path, monkeypatch, capsys):
    missing = tmp_path / "missing.csv"
    command = ["encort", "train", "text-classification", *arguments, "--train", missing]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == DatasetError.exit_code
    assert capsys.readouterr() == ("", f"encort: there is no file {missing}\n")


def test_options_reach_the_settings(arguments, tables, tmp_path):
    options = {
        "epochs": 1,
        "batch_size": 30,
        "learning_rate": 0.004,
        "weight_decay": 0.3,
        "warmup_ratio": 0.4,
        "dropout": 0.2,
        "max_length": 7,
        "seed": 5,
    }
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    train(*arguments, "--validation", tables[1], *flags)
    assert json.loads((tmp_path / "checkpoint" / "training.json").read_text())["settings"] == options


def test_columns_can_be_named(arguments, tables, write):
    renamed = write("renamed.csv", tables[0].read_text().replace("text,label", "utterance,intent"))
    names = ["--text-column", "utterance", "--label-column", "intent"]
    report = json.loads(train(*arguments, "--train", renamed, *names, "--epochs", 1).stdout)
    assert report["train_rows"] + report["validation_rows"] == 120


def test_an_existing_output_needs_overwrite(arguments, trained):
    with pytest.raises(OutputExistsError, match="--overwrite"):
        train(*arguments, "--output", trained.folder)


def test_settings_out_of_range_are_all_listed(arguments):
    with pytest.raises(InputError, match=r"epochs must be .*; dropout must be"):
        train(*arguments, "--epochs", 0, "--dropout", 2)


def test_without_its_packages_it_gives_the_pip_command(arguments, monkeypatch):
    monkeypatch.setattr("encort.runtime.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r'encort train needs.*pip install "encort\[train\]"'):
        train(*arguments)


@pytest.mark.parametrize("missing", ["--model", "--train", "--output"])
def test_wrong_usage_exits_with_2(missing, arguments):
    index = arguments.index(missing)
    result = train(*arguments[:index], *arguments[index + 2 :])
    assert result.exit_code == 2
    assert f"Missing option '{missing}'" in result.stderr
