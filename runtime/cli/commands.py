"""The commands `encort embed`, `encort predict` and `encort inspect`, over `encort.load`."""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from encort.runtime.common.output.escaping import printable
from encort.runtime.common.output.terminal import echo

if TYPE_CHECKING:
    from encort.runtime.bundle.manifest import Fidelity, HeadInfo, Manifest
    from encort.runtime.cli.readers import Input
    from encort.runtime.cli.row_errors import OnError
    from encort.runtime.cli.writers import Record
    from encort.runtime.common.aggregation import AggregationName
    from encort.runtime.model import Model
    from encort.runtime.text.token_batch import Text, TokenBatch
    from encort.runtime.text.windows import Overflow

Command = TypeVar("Command", bound=Callable[..., Any])

_FOLDER = click.Path(path_type=Path)
_BATCH_OPTIONS = [
    click.argument("bundle", type=_FOLDER),
    click.argument("texts", nargs=-1),
    click.option(
        "--input",
        "-i",
        "file",
        type=_FOLDER,
        help="Read texts from a .csv, .tsv, .jsonl or .parquet file, or one text per line.",
    ),
    click.option("--column", help="Column of the texts; default: text and text_pair, tokens, or question and context."),
    click.option(
        "--output", "-o", type=_FOLDER, help="Write a .jsonl, .npy or .parquet file; default: JSON lines on stdout."
    ),
    click.option("--device", default="auto", help="auto, cpu, cuda, or GPUs as cuda:1 or cuda:0,1."),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "fp16", "int8"]),
        default="auto",
        help="Precision of the graph; default: auto, the exporter's first choice. fp16 is for GPUs.",
    ),
    click.option("--threads", type=int, help="Cores to use; default: all that this process may use."),
    click.option(
        "--overflow",
        type=click.Choice(["truncate", "error", "window"]),
        help="What to do with texts over the limit; default: window for questions, else truncate.",
    ),
    click.option(
        "--stride",
        type=int,
        help="Tokens that neighbouring windows share; default: a quarter of a window, at most 128.",
    ),
    click.option(
        "--on-error",
        type=click.Choice(["fail", "skip", "column"]),
        default="fail",
        help="For an input that cannot be used: stop, leave it out, or write its error into the field error.",
    ),
]


def batch_options(command: Command) -> Command:
    """Add the arguments and options of a command that runs texts through a bundle."""
    for option in reversed(_BATCH_OPTIONS):
        command = option(command)
    return command


@click.command()
@batch_options
def embed(**options: Any) -> None:
    """Write sentence embeddings of TEXTS, one record per text.

    \b
    encort embed banking.bundle "a text" "another"
    encort embed banking.bundle --input texts.csv --output embeddings.npy
    """  # noqa: D301 - click's mark for examples is the character itself
    from encort.runtime.cli.records import embedding_records

    _run(embedding_records, lambda model: model.dimension, lambda _: "truncate", lambda _, texts: texts, **options)


@click.command()
@batch_options
@click.option("--head", help="Name of the head; default: the first one that fits the options.")
@click.option("--all-scores", is_flag=True, help="Write the score of every label.")
@click.option("--n-best", type=click.IntRange(min=1), help="Most answers per question; default: 1.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Least probability of the labels of a text that may have several; default: the bundle's threshold.",
)
@click.option(
    "--null-threshold",
    type=float,
    help="Questions have no answer if the null score's logarithm is larger than that of the best answer by more than "
    "this; inf always answers; default: the bundle's threshold.",
)
@click.option(
    "--aggregation",
    type=click.Choice(["word", "none", "simple", "first", "average", "max"]),
    help="How spans are made of the tags of tokens; default: as the bundle's head was made for.",
)
def predict(
    head: str | None,
    all_scores: bool,
    n_best: int | None,
    threshold: float | None,
    null_threshold: float | None,
    aggregation: "AggregationName | None",
    **options: Any,
) -> None:
    """Write predictions for TEXTS from a head of the bundle, one record per text.

    \b
    encort predict banking.bundle "my card has not come"
    encort predict banking.bundle --input messages.csv --column message --output labels.jsonl
    encort predict answers.bundle --input questions.jsonl --n-best 3
    encort predict topics.bundle --input messages.csv --threshold 0.3
    """  # noqa: D301 - click's mark for examples is the character itself
    from encort.runtime.cli.records import PredictionOptions, default_overflow, join_texts, prediction_records

    of_head = PredictionOptions(
        head=head,
        all_scores=all_scores,
        n_best=n_best,
        threshold=threshold,
        null_threshold=null_threshold,
        aggregation=aggregation,
    )
    records = functools.partial(prediction_records, options=of_head)
    overflow = functools.partial(default_overflow, options=of_head)
    join = functools.partial(join_texts, options=of_head)
    _run(records, lambda model: 0 if model.manifest.heads else model.dimension, overflow, join, **options)


@click.command()
@click.argument("bundle", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Show heads, limits and certificates of BUNDLE."""
    from encort.runtime.bundle.bundle import Bundle
    from encort.runtime.cli.streams import check_stdout

    check_stdout()
    manifest = Bundle.open(bundle).manifest
    echo(manifest.to_json().rstrip() if as_json else _summary(manifest))


def _run(
    records: "Callable[[Model, TokenBatch], list[Record]]",
    dimension: "Callable[[Model], int]",
    default_overflow: "Callable[[Model], Overflow]",
    join: "Callable[[Model, Sequence[Text]], Sequence[Text]]",
    *,
    bundle: Path,
    texts: tuple[str, ...],
    file: Path | None,
    column: str | None,
    output: Path | None,
    overflow: "Overflow | None",
    stride: int | None,
    on_error: "OnError",
    **options: Any,
) -> None:
    from encort.runtime.cli.readers import read_inputs
    from encort.runtime.cli.row_errors import RowRunner
    from encort.runtime.cli.writers import check_writes_errors, open_writer
    from encort.runtime.model import load

    inputs = read_inputs(texts, file, column)
    if on_error == "column":
        check_writes_errors(output)
    with (
        open_writer(output, dimension=lambda: dimension(model)) as writer,
        load(bundle, **options) as model,
        _progress(inputs) as progress,
    ):
        dimension(model)  # refuses a bundle without embeddings, before texts are read
        default = default_overflow(model)  # also refuses options without a fitting head, before texts are read
        policy = default if overflow is None else overflow

        def tokenize(texts: "Sequence[Text]") -> "TokenBatch":
            return model.tokenize(join(model, texts), overflow=policy, stride=stride)

        tokenize([])  # refuses wrong options, which are no errors of inputs
        runner = RowRunner(tokenize=tokenize, make_records=functools.partial(records, model), on_error=on_error)
        for records_of_chunk in runner.run(progress):
            writer.write(records_of_chunk)
    if runner.errors:
        counts = f"{runner.errors} of {runner.inputs} inputs"
        echo(f"encort: {counts} cannot be used; the first: {runner.first_error}", err=True)


def _progress(inputs: "Iterator[Input]") -> "AbstractContextManager[Iterable[Input]]":
    """Show a counter of texts on stderr, if stderr is a terminal."""
    return click.progressbar(inputs, label="texts", show_pos=True, file=sys.stderr, hidden=not sys.stderr.isatty())


def _summary(manifest: "Manifest") -> str:
    rows: list[tuple[str, object]] = [("task", manifest.task)]
    rows += [(head.name, f"{head.task}, {_shortened(head.labels)}{_settings(head)}") for head in manifest.heads]
    if manifest.embedding is not None:
        norm = "L2 normalized" if manifest.embedding.normalize else "not normalized"
        rows.append(("embedding", f"{' + '.join(manifest.embedding.pooling)} pooling, {norm}"))
    rows.append(("max length", f"{manifest.max_length} tokens"))
    rows += [("source", f"{source.model} ({source.architecture})") for source in manifest.sources]
    rows.append(("tools", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())))
    for variant in manifest.variants:
        rows.append((variant.name, f"{variant.device}, {variant.precision}, {variant.layout}: {variant.file}"))
        if variant.fidelity is not None:
            rows += [("", line) for line in _fidelity_lines(variant.fidelity)]
    lines = [(printable(name), printable(value)) for name, value in rows]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _fidelity_lines(fidelity: "Fidelity") -> "Iterator[str]":
    errors = ", ".join(f"{name} {error:.1e}" for name, error in fidelity.max_abs_error.items())
    yield f"largest difference to eager PyTorch over {fidelity.cases} batches: {errors}"
    flips = "" if fidelity.label_flips is None else f", {fidelity.label_flips} label flips"
    yield f"cosine over {fidelity.texts} texts: mean {fidelity.mean_cosine:.5f}, min {fidelity.min_cosine:.5f}{flips}"
    yield f"largest change of a text with its neighbours: {fidelity.batch_difference:.1e}"
    if fidelity.metric is not None:
        metric = fidelity.metric
        yield f"{metric.name} {metric.before:.2f} before, {metric.after:.2f} after ({metric.examples} examples)"


def _settings(head: "HeadInfo") -> str:
    threshold = "" if head.threshold == 0.5 else f", threshold {head.threshold:.3f}"
    return f"{threshold}, aggregation {head.aggregation}" if head.task == "token-classification" else threshold


def _shortened(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:4])
    return f"{len(labels)} labels: {shown}{', …' if len(labels) > 4 else ''}" if labels else "no labels"
