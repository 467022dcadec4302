"""`encort train TASK`: one thin command over `train` for every task."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from encort.runtime.common.errors import InputError
from encort.runtime.common.extras import require

TASKS = {
    "text-classification": ("text_classification:TextClassification", "Texts or pairs into one of several classes."),
    "multi-label-classification": ("text_classification:MultiLabelClassification", "Texts or pairs to any labels."),
    "text-regression": ("text_classification:TextRegression", "Texts or pairs to a number, as a similarity."),
    "token-classification": ("token_classification:TokenClassification", "Words or characters to tags (BIO)."),
    "question-answering": ("question_answering:QuestionAnswering", "Questions to the part of a context."),
    "next-sentence-prediction": ("next_sentence:NextSentencePrediction", "Whether a text follows another."),
    "dual-encoder": ("next_sentence:DualEncoderTask", "The same by two encoders, one for each order of the texts."),
    "sentence-embedding": ("sentence_embedding:SentenceEmbedding", "Pairs that are alike, or scored, to embeddings."),
}
"""Name to home and help line. Strings, so that `--help` does not import torch."""

_COMMON = [
    click.option("--model", required=True, help="Checkpoint folder or hub id of a pretrained encoder."),
    click.option("--from-scratch", is_flag=True, help="Begin with new weights of the model's settings."),
    click.option("--set", "changes", multiple=True, help="SETTING=VALUE of the new weights' model."),
    click.option("--output", "-o", required=True, help="Checkpoint folder to make."),
    click.option("--overwrite", is_flag=True, help="Replace an earlier checkpoint or unfinished training."),
    click.option("--resume", is_flag=True, help="Go on with an unfinished training, if there is one."),
    click.option("--epochs", type=int, help="Passes over the data."),
    click.option("--batch-size", type=int, help="Examples a step on each device."),
    click.option("--gradient-accumulation", type=int, help="Batches that make one step."),
    click.option("--learning-rate", type=float, help="Peak of AdamW's; else by the encoder's width."),
    click.option("--weight-decay", type=float, help="On all but biases and layer norms."),
    click.option(
        "--schedule",
        type=click.Choice(["linear", "cosine", "constant_with_warmup"]),
        help="How the learning rate falls; linear unless set.",
    ),
    click.option("--warmup-ratio", type=float, help="Part of the steps in which the learning rate rises."),
    click.option("--dropout", type=float, help="Probability; else the model's."),
    click.option("--max-length", type=int, help="Most tokens of an input; else the model's limit."),
    click.option("--save-steps", type=int, help="Evaluate and save after so many steps; else each epoch."),
    click.option("--patience", type=int, help="Stop after so many evaluations without a better one."),
    click.option("--bf16/--no-bf16", default=None, help="Compute in bfloat16; else where a GPU has it."),
    click.option("--seed", type=int, help="The same seed gives the same weights on CPU."),
]
_DATA = [
    click.option("--train", required=True, help="File, or folder or hub id with splits, to train on."),
    click.option("--validation", help="The same, to choose the best weights by; else a tenth of --train."),
    click.option("--test", help="The same, to report on at the end."),
    click.option("--column", "columns", multiple=True, help="ROLE=NAME of a column, such as text=message."),
    click.option("--header", help="Names of the columns, by commas, of a .csv or .tsv file that lacks them."),
]


_HEAD_FORM = "NAME=TASK:TRAIN[,VALIDATION[,TEST]]"


def _with(options: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """All of the options, in this order."""
    return functools.partial(functools.reduce, lambda command, option: option(command), options[::-1])


@click.group()
def train() -> None:
    """Fine-tune an encoder on labelled data.

    \b
    encort train text-classification --model MODEL --train banking77.csv --output checkpoint
    """  # noqa: D301 - click's mark for examples is the character itself


def _train_task(home: str, *, columns: Sequence[str], header: str | None, **options: Any) -> None:
    _require()
    from encort.training.train import train as run

    task = _task(home)
    report = run(
        task,
        columns=dict(map(_role_and_name, columns)),
        header=None if header is None else _names(header),
        **_with_settings(options, task.defaults),
    )
    _echo(report.summary)


def _command(name: str, home: str, line: str) -> click.Command:
    command = _with([*_DATA, *_COMMON])(functools.partial(_train_task, home))
    return click.command(name, help=line)(command)


for _name, (_home, _line) in TASKS.items():
    train.add_command(_command(_name, _home, _line))


@train.command("multi-head")
@click.option("--head", "heads", multiple=True, required=True, help=f"{_HEAD_FORM}.")
@click.option("--column", "columns", multiple=True, help="HEAD.ROLE=NAME of a column, such as intents.text=message.")
@click.option(
    "--header", "headers", multiple=True, help="HEAD=NAMES, by commas, of the columns of files that lack them."
)
@_with(_COMMON)
def multi_head(heads: Sequence[str], columns: Sequence[str], headers: Sequence[str], **options: Any) -> None:
    """Several heads on one shared encoder, a checkpoint each.

    \b
    encort train multi-head --model MODEL --output both \\
      --head intents=text-classification:intents.csv --head names=token-classification:names.conll
    encort export both/intents both/names --output both.bundle
    """  # noqa: D301 - click's mark for examples is the character itself
    _require()
    from encort.training.tasks.multi_head import HeadData, train_multi_head

    data = {name: HeadData(**head) for name, head in _heads(heads, columns, headers).items()}
    reports = train_multi_head(data, **_with_settings(options, {}))
    _echo({name: report.summary for name, report in reports.items()})


def _require() -> None:
    require(
        "encort train", "train", "torch", "transformers", "datasets", "accelerate", "sklearn", "scipy", "matplotlib"
    )


def _task(home: str) -> Any:
    module, name = home.split(":")
    return getattr(import_module(f"encort.training.{module}"), name)()


def _with_settings(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options with those that are settings in one object, by default the task's."""
    from encort.training.settings import TrainingSettings

    names = {field.name for field in dataclasses.fields(TrainingSettings)}
    chosen = {name: value for name, value in options.items() if name in names and value is not None}
    others = {name: value for name, value in options.items() if name not in names}
    changes = dict(map(_setting, others.pop("changes")))
    return {**others, "config_changes": changes, "settings": TrainingSettings(**{**defaults, **chosen})}


def _setting(change: str) -> tuple[str, Any]:
    name, equals, value = change.partition("=")
    if not equals:
        raise InputError(f"--set {change!r} is not SETTING=VALUE, such as num_hidden_layers=2")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _role_and_name(column: str) -> tuple[str, str]:
    role, equals, name = column.partition("=")
    if not equals:
        raise InputError(f"--column {column!r} is not ROLE=NAME, such as text=message")
    return role, name


def _names(header: str) -> list[str]:
    return [name.strip() for name in header.split(",")]


def _heads(heads: Sequence[str], columns: Sequence[str], headers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `HeadData` is made of, by the names of the heads."""
    found = dict(map(_head, heads))
    if len(found) < len(heads):
        raise InputError("two --head have the same name")
    for head, role, name in map(_head_column, columns):
        _named(head, found)["columns"][role] = name
    for head, names in map(_head_header, headers):
        _named(head, found)["header"] = names
    return found


def _head(head: str) -> tuple[str, dict[str, Any]]:
    """The name of a head, and what `HeadData` is made of."""
    name, _, rest = head.partition("=")
    task, _, files = rest.partition(":")
    train_file, validation, test, *more = [*files.split(","), "", ""]
    if not (name.isidentifier() and task in TASKS and train_file) or any(more):
        raise InputError(f"--head {head!r} is not {_HEAD_FORM}, with letters and a task of: {', '.join(TASKS)}")
    splits = {"train": train_file, "validation": validation or None, "test": test or None}
    return name, {"task": _task(TASKS[task][0]), **splits, "columns": {}}


def _head_column(column: str) -> tuple[str, str, str]:
    head_and_role, equals, name = column.partition("=")
    head, dot, role = head_and_role.partition(".")
    if not (dot and equals):
        raise InputError(f"--column {column!r} is not HEAD.ROLE=NAME, such as intents.text=message")
    return head, role, name


def _head_header(header: str) -> tuple[str, list[str]]:
    head, equals, names = header.partition("=")
    if not equals:
        raise InputError(f"--header {header!r} is not HEAD=NAMES, such as intents=text,label")
    return head, _names(names)


def _named(head: str, heads: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    if head not in heads:
        raise InputError(f"--column or --header is of the head {head!r}, but the heads are: {', '.join(heads)}")
    return heads[head]


def _echo(summary: Mapping[str, Any]) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
        click.echo(json.dumps(summary, ensure_ascii=False))
