"""`encort embed`, `predict` and `inspect`: thin commands over `encort.load`."""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from encort.runtime.bundle.manifest import Fidelity, Manifest
    from encort.runtime.cli.writers import Record
    from encort.runtime.model import Model
    from encort.runtime.text.token_batch import Text, TokenBatch
    from encort.runtime.text.windows import Overflow

Command = TypeVar("Command", bound=Callable[..., Any])

_CHUNK = 1024
"""Texts that are read at a time: enough to fill micro-batches, few enough that results keep coming."""
_FOLDER = click.Path(path_type=Path)
_BATCH_OPTIONS = [
    click.argument("bundle", type=_FOLDER),
    click.argument("texts", nargs=-1),
    click.option("--input", "-i", "file", type=_FOLDER, help="Read texts from .csv, .tsv, .jsonl, .parquet or lines."),
    click.option("--column", help="Column of the texts; otherwise text, and text_pair where there is one."),
    click.option(
        "--output", "-o", type=_FOLDER, help="Write .jsonl, .npy or .parquet; otherwise JSON lines on stdout."
    ),
    click.option("--device", default="auto", help="auto, cpu, cuda, or a GPU as cuda:1."),
    click.option("--precision", default="auto", help="auto, fp32, int8 or, on GPUs, fp16."),
    click.option("--threads", type=int, help="Cores to use; otherwise what the container allows."),
    click.option(
        "--overflow", help="For too long texts: truncate, window or error; for questions window, else truncate."
    ),
    click.option("--stride", type=int, help="Tokens that neighbouring windows share; otherwise a quarter of one."),
]


def batch_options(command: Command) -> Command:
    """The arguments and options of every command that runs texts through a bundle."""
    for option in reversed(_BATCH_OPTIONS):
        command = option(command)
    return command


@click.command()
@batch_options
def embed(**options: Any) -> None:
    """Sentence embeddings of TEXTS, one record a text.

    \b
    encort embed banking.bundle "a text" "another"
    encort embed banking.bundle --input texts.csv --output embeddings.npy
    """  # noqa: D301 - click's mark for examples is the character itself
    from encort.runtime.cli.records import embedding_records

    _run(embedding_records, lambda model: model.dimension, lambda _: "truncate", **options)


@click.command()
@batch_options
@click.option("--head", help="The head to ask, where a bundle has several; otherwise the first that fits.")
@click.option("--all-scores", is_flag=True, help="Give the score of every label.")
@click.option("--n-best", type=click.IntRange(min=1), help="Most answers to a question; otherwise 1.")
def predict(head: str | None, all_scores: bool, n_best: int | None, **options: Any) -> None:
    """Whatever the bundle's task gives for TEXTS, one record a text.

    \b
    encort predict banking.bundle "my card has not come"
    encort predict banking.bundle --input messages.csv --column message --output labels.jsonl
    encort predict answers.bundle --input questions.jsonl --n-best 3
    """  # noqa: D301 - click's mark for examples is the character itself
    from encort.runtime.cli.records import overflow_of, prediction_records

    asked: dict[str, Any] = {"head": head, "all_scores": all_scores, "n_best": n_best}
    records = functools.partial(prediction_records, **asked)
    usual = functools.partial(overflow_of, **asked)
    _run(records, lambda model: 0 if model.manifest.heads else model.dimension, usual, **options)


@click.command()
@click.argument("bundle", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """What a bundle says of itself."""
    from encort.runtime.bundle.bundle import Bundle

    manifest = Bundle.open(bundle).manifest
    click.echo(manifest.to_json() if as_json else _summary(manifest), nl=not as_json)


def _run(
    records: "Callable[[Model, TokenBatch], list[Record]]",
    dimension: "Callable[[Model], int]",
    usual_overflow: "Callable[[Model], Overflow]",
    *,
    bundle: Path,
    texts: tuple[str, ...],
    file: Path | None,
    column: str | None,
    output: Path | None,
    overflow: "Overflow | None",
    stride: int | None,
    **options: Any,
) -> None:
    from encort.runtime.cli.readers import read_texts
    from encort.runtime.cli.writers import open_writer
    from encort.runtime.model import load

    stream = read_texts(texts, file, column)
    with (
        load(bundle, **options) as model,
        open_writer(output, dimension=dimension(model)) as writer,
        _progress(stream) as counted,
    ):
        usual = usual_overflow(model)  # refuses what the bundle has no head for, before texts are read
        policy = usual if overflow is None else overflow
        for batch in model.tokenize_stream(counted, overflow=policy, stride=stride, chunk=_CHUNK):
            writer.write(records(model, batch))


def _progress(stream: "Iterator[Text]") -> "AbstractContextManager[Iterable[Text]]":
    """Count texts on stderr as they are read; nothing where stderr is not a terminal."""
    return click.progressbar(stream, label="texts", show_pos=True, file=sys.stderr, hidden=not sys.stderr.isatty())


def _summary(manifest: "Manifest") -> str:
    rows: list[tuple[str, object]] = [("task", manifest.task)]
    rows += [(head.name, f"{head.task}, {_shortened(head.labels)}") for head in manifest.heads]
    if manifest.embedding is not None:
        norm = "L2 normalized" if manifest.embedding.normalize else "not normalized"
        rows.append(("embedding", f"{manifest.embedding.pooling} pooling, {norm}"))
    rows.append(("max length", f"{manifest.max_length} tokens"))
    rows += [("source", f"{source.model} ({source.architecture})") for source in manifest.sources]
    rows.append(("tools", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())))
    for variant in manifest.variants:
        rows.append((variant.name, f"{variant.device}, {variant.precision}, {variant.layout}: {variant.file}"))
        if variant.fidelity is not None:
            rows += [("", line) for line in _fidelity_lines(variant.fidelity)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _fidelity_lines(fidelity: "Fidelity") -> "Iterator[str]":
    errors = ", ".join(f"{name} {error:.1e}" for name, error in fidelity.max_abs_error.items())
    yield f"largest difference to eager PyTorch over {fidelity.cases} batches: {errors}"
    flips = "" if fidelity.label_flips is None else f", {fidelity.label_flips} label flips"
    yield f"cosine over {fidelity.texts} texts: mean {fidelity.mean_cosine:.5f}, min {fidelity.min_cosine:.5f}{flips}"
    yield f"largest change of a text with its neighbours: {fidelity.batch_difference:.1e}"
    if fidelity.metric is not None:
        metric = fidelity.metric
        yield f"{metric.name} {metric.before:.2f} before, {metric.after:.2f} after ({metric.examples} examples)"


def _shortened(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:4])
    return f"{len(labels)} labels: {shown}{', …' if len(labels) > 4 else ''}" if labels else "no labels"
