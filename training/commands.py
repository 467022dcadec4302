"""`encort train TASK`: one thin command per task, over `train` and `train_multi_head`."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from encort.runtime.common.errors import InputError
from encort.runtime.common.extras import require
from encort.runtime.common.folders import check_writable
from encort.runtime.common.labelled_rows.columns import parse_columns, parse_header
from encort.runtime.common.output.escaping import dump_json
from encort.runtime.common.output.terminal import echo
from encort.training.settings import SCHEDULES, TrainingSettings

TASKS = {
    "text-classification": ("text_classification:TextClassification", "Give each text or pair one label."),
    "multi-label-classification": (
        "text_classification:MultiLabelClassification",
        "Give each text or pair any number of labels.",
    ),
    "text-regression": ("text_classification:TextRegression", "Give each text or pair a number."),
    "token-classification": ("token_classification:TokenClassification", "Tag words or characters (BIO)."),
    "question-answering": ("question_answering:QuestionAnswering", "Find the answers to questions in contexts."),
    "next-sentence-prediction": ("next_sentence:NextSentencePrediction", "Predict whether one text follows another."),
    "dual-encoder": ("next_sentence:DualEncoderTask", "Predict next sentences with two encoders."),
    "masked-language-modeling": (
        "masked_language:MaskedLanguageModeling",
        "Adapt an encoder to texts without labels.",
    ),
    "sentence-embedding": ("sentence_embedding:SentenceEmbedding", "Learn embeddings from similar or scored pairs."),
    "sparse-embedding": (
        "retrieval.sparse_embedding:SparseEmbeddingTask",
        "Learn SPLADE from queries and their documents.",
    ),
}
"""MODULE:CLASS in `training/tasks` and help line, by name. The class is a string so that `--help` imports no torch."""

_COMMON = [
    click.option("--model", required=True, help="Checkpoint folder or hub id of a pretrained encoder."),
    click.option("--from-scratch", is_flag=True, help="Start with new weights for the settings of the model."),
    click.option(
        "--set", "changes", multiple=True, help="SETTING=VALUE of the model, only with --from-scratch; can be repeated."
    ),
    click.option("--output", "-o", required=True, help="Checkpoint folder to make."),
    click.option("--overwrite", is_flag=True, help="Replace an earlier checkpoint or an unfinished training."),
    click.option("--resume", is_flag=True, help="Continue an unfinished training, if there is one."),
    click.option("--epochs", type=int, help="Passes over the training data; default: 4 or 6, by the task."),
    click.option("--batch-size", type=int, help="Examples per batch on each device; default: 32 or 16, by the task."),
    click.option("--gradient-accumulation", type=int, help="Batches per optimizer step; default: 1."),
    click.option(
        "--learning-rate", type=float, help="Peak learning rate; default: by the task and the width of the encoder."
    ),
    click.option(
        "--weight-decay", type=float, help="Decay of all weights except biases and layer norms; default: 0.01."
    ),
    click.option(
        "--schedule",
        type=click.Choice(SCHEDULES),
        help="How the learning rate changes after its warm-up; default: linear.",
    ),
    click.option(
        "--warmup-ratio", type=float, help="Share of the steps in which the learning rate rises; default: 0.1."
    ),
    click.option("--dropout", type=float, help="Dropout probability; default: the model's."),
    click.option("--max-length", type=int, help="Largest number of tokens of one input; default: the model's limit."),
    click.option("--save-steps", type=int, help="Steps between evaluations, each with a save; default: one epoch."),
    click.option("--patience", type=int, help="Stop after this many evaluations in a row without a better score."),
    click.option("--bf16/--no-bf16", default=None, help="Compute in bfloat16; default: only on GPUs that support it."),
    click.option("--seed", type=int, help="Seed; the same seed gives the same weights on a CPU; default: 13."),
]
_DATA = [
    click.option("--train", required=True, help="Training data: a file, or a folder or hub id with splits."),
    click.option("--validation", help="Data that decides which weights are the best; default: a tenth of --train."),
    click.option("--test", help="Data for the scores in the report at the end."),
    click.option("--column", "columns", multiple=True, help="ROLE=NAME of a column, such as text=message."),
    click.option("--header", help="Names of the columns, separated by commas, for a .csv or .tsv file without them."),
]
_OWN: Mapping[str, Mapping[str, tuple[type, str]]] = {
    "sparse-embedding": {
        "query_flops": (float, "Weight of the penalty for words of queries; more gives fewer words; default: 5e-5."),
        "document_flops": (float, "The same for words of documents; default: 3e-5."),
    },
}
"""Type and help of the options of one task alone, by task; their names are arguments of its class."""

_HEAD_FORM = "NAME=TASK:TRAIN[,VALIDATION[,TEST]]"


def _with(options: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Return a decorator that adds these options to a command, in this order."""
    return functools.partial(functools.reduce, lambda command, option: option(command), options[::-1])


@click.group()
def train() -> None:
    """Fine-tune an encoder on labelled data.

    \b
    encort train text-classification --model MODEL --train banking77.csv --output checkpoint
    """  # noqa: D301 - click's mark for examples is the character itself


def _train_task(
    task_class: str, own: Collection[str], *, columns: Sequence[str], header: str | None, **options: Any
) -> None:
    _check_start(options["output"])
    from encort.training.train import train as run_training

    values = {name: options.pop(name) for name in own}
    task = _make_task(task_class, **{name: value for name, value in values.items() if value is not None})
    report = run_training(
        task,
        columns=parse_columns(columns),
        header=None if header is None else parse_header(header),
        **_gather_settings(options, task.defaults),
    )
    _print_summary(report.summary)


def _command(name: str, task_class: str, help_line: str) -> click.Command:
    own = _OWN.get(name, {})
    options = [click.option(f"--{key.replace('_', '-')}", type=kind, help=text) for key, (kind, text) in own.items()]
    command = _with([*_DATA, *options, *_COMMON])(functools.partial(_train_task, task_class, own.keys()))
    return click.command(name, help=help_line)(command)


for _name, (_task_class, _help_line) in TASKS.items():
    train.add_command(_command(_name, _task_class, _help_line))


@train.command("multi-head")
@click.option("--head", "heads", multiple=True, required=True, help=f"{_HEAD_FORM}.")
@click.option("--column", "columns", multiple=True, help="HEAD.ROLE=NAME of a column, such as intents.text=message.")
@click.option(
    "--header", "headers", multiple=True, help="HEAD=NAMES, separated by commas, for files without column names."
)
@_with(_COMMON)
def multi_head(heads: Sequence[str], columns: Sequence[str], headers: Sequence[str], **options: Any) -> None:
    """Train several heads on one encoder.

    The output has one checkpoint folder per head; `encort export` makes one bundle of them.

    \b
    encort train multi-head --model MODEL --output both \\
      --head intents=text-classification:intents.csv --head names=token-classification:names.conll
    encort export both/intents both/names --output both.bundle
    """  # noqa: D301 - click's mark for examples is the character itself
    _check_start(options["output"])
    from encort.training.multi_head import train_multi_head
    from encort.training.prepare import HeadData

    data = {name: HeadData(**head) for name, head in _parse_heads(heads, columns, headers).items()}
    reports = train_multi_head(data, **_gather_settings(options, {}))
    _print_summary({name: report.summary for name, report in reports.items()})


def _check_start(output: str) -> None:
    """Check what can be checked before seconds of imports: the packages, and that the output can be written."""
    check_writable(Path(output))
    require(
        "encort train", "train", "torch", "transformers", "datasets", "accelerate", "sklearn", "scipy", "matplotlib"
    )


def _make_task(task_class: str, **options: Any) -> Any:
    module, name = task_class.split(":")
    return getattr(import_module(f"encort.training.tasks.{module}"), name)(**options)


def _gather_settings(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, with all training settings gathered in `settings` and all model settings in `config_changes`.

    Args:
        options: Values by name; None is not set.
        defaults: Settings of the task, for those that are not set.
    """
    names = {field.name for field in dataclasses.fields(TrainingSettings)}
    chosen = {name: value for name, value in options.items() if name in names and value is not None}
    others = {name: value for name, value in options.items() if name not in names}
    changes = dict(map(_parse_setting, others.pop("changes")))
    return {**others, "config_changes": changes, "settings": TrainingSettings(**{**defaults, **chosen})}


def _parse_setting(option: str) -> tuple[str, Any]:
    name, equals, value = option.partition("=")
    if not equals:
        raise InputError(f"--set {option!r} is not SETTING=VALUE, such as num_hidden_layers=2")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _parse_heads(heads: Sequence[str], columns: Sequence[str], headers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the arguments of `HeadData` by the names of the heads."""
    parsed = dict(map(_parse_head, heads))
    if len(parsed) < len(heads):
        raise InputError("two --head have the same name")
    for head, role, name in map(_parse_head_column, columns):
        _set_once(_get_head(head, parsed)["columns"], role, name, f"--column {head}.{role}=")
    for head, names in map(_parse_head_header, headers):
        _set_once(_get_head(head, parsed), "header", names, f"--header {head}=")
    return parsed


def _parse_head(option: str) -> tuple[str, dict[str, Any]]:
    name, _, rest = option.partition("=")
    task, _, files = rest.partition(":")
    train_file, validation, test, *more = [*files.split(","), "", ""]
    if not (name.isidentifier() and task in TASKS and train_file) or any(more):
        raise InputError(
            f"--head {option!r} is not {_HEAD_FORM}, where NAME is an identifier and TASK one of: {', '.join(TASKS)}"
        )
    splits = {"train": train_file, "validation": validation or None, "test": test or None}
    return name, {"task": _make_task(TASKS[task][0]), **splits, "columns": {}}


def _parse_head_column(option: str) -> tuple[str, str, str]:
    head_and_role, equals, name = option.partition("=")
    head, dot, role = head_and_role.partition(".")
    if not (dot and equals):
        raise InputError(f"--column {option!r} is not HEAD.ROLE=NAME, such as intents.text=message")
    return head, role, name


def _parse_head_header(option: str) -> tuple[str, list[str]]:
    head, equals, names = option.partition("=")
    if not equals:
        raise InputError(f"--header {option!r} is not HEAD=NAMES, such as intents=text,label")
    return head, parse_header(names)


def _get_head(name: str, heads: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    if name not in heads:
        raise InputError(f"--column or --header names the head {name!r}, but the heads are: {', '.join(heads)}")
    return heads[name]


def _set_once(values: dict[str, Any], name: str, value: Any, option: str) -> None:
    if name in values:
        raise InputError(f"{option} is given twice; give it once")
    values[name] = value


def _print_summary(summary: Mapping[str, Any]) -> None:
    if os.environ.get("RANK", "0") == "0":  # in distributed training, the first process alone prints
        echo(dump_json(summary))
