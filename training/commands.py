"""`encort train TASK`: thin commands over the training calls, one a task."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from encort.runtime.extras import require

_FILE = click.Path(path_type=Path)


@click.group()
def train() -> None:
    """Fine-tune an encoder on labelled data."""


@train.command("text-classification")
@click.option("--model", required=True, help="Checkpoint folder or hub id of a pretrained encoder.")
@click.option(
    "--train",
    "train_file",
    type=_FILE,
    required=True,
    help="Table (.csv, .tsv, .jsonl, .parquet) to train on.",
)
@click.option("--validation", type=_FILE, help="Table to choose the best epoch by; else a tenth of --train.")
@click.option("--output", "-o", type=_FILE, required=True, help="Checkpoint folder to make.")
@click.option("--text-column", help="Column of the texts; else text.")
@click.option("--label-column", help="Column of the labels; else label_text, label, or the only other one.")
@click.option("--epochs", type=int, help="Passes over the data.")
@click.option("--batch-size", type=int, help="Texts a step.")
@click.option("--learning-rate", type=float, help="Peak of AdamW's; else by the encoder's width.")
@click.option("--weight-decay", type=float, help="On all but biases and layer norms.")
@click.option("--warmup-ratio", type=float, help="Part of the steps in which the learning rate rises.")
@click.option("--dropout", type=float, help="Probability; else the model's.")
@click.option("--max-length", type=int, help="Most tokens of a text; else the model's limit.")
@click.option("--seed", type=int, help="The same seed gives the same weights on CPU.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier checkpoint.")
def text_classification(
    model: str,
    train_file: Path,
    validation: Path | None,
    output: Path,
    text_column: str | None,
    label_column: str | None,
    overwrite: bool,
    **settings: Any,
) -> None:
    """Put texts into classes.

    \b
    encort train text-classification --model MODEL --train banking77.csv --output checkpoint
    """  # noqa: D301 - click's mark for examples is the character itself
    require("encort train", "train", "torch", "transformers", "datasets", "accelerate", "sklearn")
    from encort.training.settings import TrainingSettings
    from encort.training.text_classification import train_text_classification

    chosen = TrainingSettings(**{name: value for name, value in settings.items() if value is not None})
    report = train_text_classification(
        model=model,
        train=train_file,
        validation=validation,
        output=output,
        text_column=text_column,
        label_column=label_column,
        settings=chosen,
        overwrite=overwrite,
    )
    shown = {name: value for name, value in asdict(report).items() if name not in {"labels", "settings"}}
    click.echo(json.dumps(shown, ensure_ascii=False))
