"""The commands `encort embed`, `encort predict` and `encort rank`, over `encort.load`."""

import functools
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from encort.runtime.cli.options import (
    BATCH_OPTIONS,
    BUNDLE,
    COLUMN,
    HEADER,
    INPUT,
    LOAD_OPTIONS,
    OUTPUT,
    PROMPT,
    add_options,
)
from encort.runtime.common.output.terminal import echo

if TYPE_CHECKING:
    from encort.runtime.common.aggregation import AggregationName
    from encort.runtime.corpus.inputs import Input
    from encort.runtime.corpus.records import Records
    from encort.runtime.corpus.row_errors import OnError
    from encort.runtime.tasks.quantization import EmbeddingPrecision
    from encort.runtime.text.windows import Overflow


@click.command()
@add_options(*BATCH_OPTIONS, PROMPT)
@click.option("--dimensions", type=int, help="Number of leading values of each embedding; default: as the bundle says.")
@click.option(
    "--output-precision",
    type=click.Choice(["float32", "float16", "int8", "uint8", "binary", "ubinary"]),
    default="float32",
    help="Precision of the embeddings: two bytes per value, one, or for binary and ubinary one bit; default: float32.",
)
@click.option("--tokens", is_flag=True, help="Write the vectors of the tokens in place of sentence embeddings.")
@click.option("--sparse", is_flag=True, help="Write sparse embeddings in their place: token ids with weights.")
@click.option("--top-k", type=click.IntRange(min=1), help="Most weights of --sparse, the largest ones; default: all.")
def embed(
    prompt: str | None,
    dimensions: int | None,
    output_precision: "EmbeddingPrecision",
    tokens: bool,
    sparse: bool,
    top_k: int | None,
    **options: Any,
) -> None:
    """Write sentence embeddings of TEXTS, one record per text.

    \b
    encort embed banking.bundle "a text" "another"
    encort embed banking.bundle --input texts.csv --output embeddings.npy
    encort embed search.bundle --input "corpus/*.parquet" --output vectors --on-error column --resume
    encort embed splade.bundle --sparse --top-k 20 "a text"
    encort embed search.bundle --prompt document --dimensions 256 --output-precision int8 -i texts.csv -o texts.npy
    """  # noqa: D301 - click's mark for examples is the character itself
    from encort.runtime.common.errors import InputError
    from encort.runtime.corpus.retrieval_records import choose_records, conflict

    dense = {"--dimensions": dimensions is not None, "--output-precision": output_precision != "float32"}
    given = [name for name, is_given in dense.items() if is_given]
    if problem := conflict(tokens=tokens, sparse=sparse, top_k=top_k, dense=given):
        raise InputError(problem)
    records = choose_records(
        tokens=tokens, sparse=sparse, top_k=top_k, prompt=prompt, dimensions=dimensions, precision=output_precision
    )
    _run(records, **options)


@click.command()
@add_options(*BATCH_OPTIONS)
@click.option("--head", help="Name of the head; default: the first one that fits the options.")
@click.option("--all-scores", is_flag=True, help="Write the score of every label.")
@click.option("--n-best", type=click.IntRange(min=1), help="Most answers per question; default: 1.")
@click.option("--top-k", type=click.IntRange(min=1), help="Most words per mask token; default: 5.")
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
@click.option("--labels", help="Labels to choose from, with commas between, for a head of natural language inference.")
@click.option("--template", help='Hypothesis about a label of --labels; default: "This example is {}."')
@click.option("--multi-label", is_flag=True, help="A text may have several of --labels: each is judged by itself.")
def predict(
    head: str | None,
    all_scores: bool,
    n_best: int | None,
    top_k: int | None,
    threshold: float | None,
    null_threshold: float | None,
    aggregation: "AggregationName | None",
    labels: str | None,
    template: str | None,
    multi_label: bool,
    **options: Any,
) -> None:
    """Write predictions for TEXTS from a head of the bundle, one record per text.

    \b
    encort predict banking.bundle "my card has not come"
    encort predict banking.bundle --input messages.csv --column message --output labels.jsonl
    encort predict answers.bundle --input questions.jsonl --n-best 3
    encort predict words.bundle --top-k 3 "Paris is the [MASK] of France."
    encort predict topics.bundle --input messages.csv --threshold 0.3
    encort predict nli.bundle --labels "travel, cooking" "Where is my luggage?"
    """  # noqa: D301 - click's mark for examples is the character itself
    from encort.runtime.cli.zero_shot import ZeroShotRecords, check_options
    from encort.runtime.corpus.records import PredictionRecords
    from encort.runtime.tasks.zero_shot import TEMPLATE

    check_options(
        labels,
        with_labels_only={"--template": template, "--multi-label": multi_label},
        without_labels_only={
            "--n-best": n_best,
            "--top-k": top_k,
            "--null-threshold": null_threshold,
            "--aggregation": aggregation,
            "--threshold without --multi-label": None if multi_label else threshold,
            # Windows would move over the hypothesis, which is the second text of a pair.
            "--overflow window": options["overflow"] == "window",
            "--stride": options["stride"],
        },
    )
    if labels is not None:
        zero_shot = ZeroShotRecords(
            labels=[label.strip() for label in labels.split(",")],
            template=TEMPLATE if template is None else template,
            multi_label=multi_label,
            head=head,
            all_scores=all_scores,
            threshold=threshold,
        )
        _run(zero_shot, **options)
        return
    records = PredictionRecords(
        head=head,
        all_scores=all_scores,
        n_best=n_best,
        top_k=top_k,
        threshold=threshold,
        null_threshold=null_threshold,
        aggregation=aggregation,
    )
    _run(records, **options)


@click.command()
@add_options(BUNDLE)
@click.argument("query")
@click.argument("documents", nargs=-1)
@add_options(INPUT, COLUMN, HEADER, OUTPUT, *LOAD_OPTIONS)
@click.option("--top-k", type=click.IntRange(min=1), help="Most documents to write; default: all.")
def rank(
    query: str,
    documents: tuple[str, ...],
    bundle: str,
    file: Path | None,
    column: str | None,
    header: str | None,
    output: Path | None,
    top_k: int | None,
    **options: Any,
) -> None:
    """Write DOCUMENTS in the order of their scores for QUERY, one record per document, the best first.

    The score is that of a cross-encoder, or else the similarity of the embeddings of query and document.

    \b
    encort rank reranker.bundle "lost card" "My card is gone" "How do I change my PIN?"
    encort rank search.bundle "lost card" --input answers.csv --top-k 10
    """  # noqa: D301 - click's mark for examples is the character itself
    from encort.runtime.cli.readers import read_texts
    from encort.runtime.cli.streams import decode_argument
    from encort.runtime.cli.writers import open_writer
    from encort.runtime.corpus.records import rank_records
    from encort.runtime.model import load

    texts = read_texts(documents, file, column, header)
    with open_writer(output) as writer, load(bundle, **options) as model:
        writer.write(rank_records(model, decode_argument(query), list(texts), top_k=top_k))


def _run(
    records: "Records",
    *,
    bundle: str,
    texts: tuple[str, ...],
    file: Path | None,
    column: str | None,
    header: str | None,
    output: Path | None,
    overflow: "Overflow | None",
    stride: int | None,
    on_error: "OnError",
    resume: bool,
    part_rows: int | None,
    prefix: str,
    **options: Any,
) -> None:
    from encort.runtime.cli.corpus import is_corpus, run_corpus
    from encort.runtime.cli.readers import read_inputs
    from encort.runtime.cli.writers import check_writes_errors, open_writer
    from encort.runtime.common.errors import InputError
    from encort.runtime.corpus.row_errors import RowRunner
    from encort.runtime.model import load

    if file is not None and not texts and is_corpus(file, output, resume=resume):
        run_corpus(
            records,
            bundle=bundle,
            file=file,
            header=header,
            output=output,
            resume=resume,
            part_rows=part_rows,
            load_options=options,
            column=column,
            overflow=overflow,
            stride=stride,
            on_error=on_error,
            prefix=prefix,
        )
        return
    if resume or part_rows is not None or prefix:
        raise InputError("--resume, --part-rows and --prefix are for jobs: name --input, and a folder with --output")
    inputs = read_inputs(texts, file, column, header)
    if on_error == "column":
        check_writes_errors(output)
    with (
        open_writer(output, no_embeddings=lambda: none) as writer,
        load(bundle, **options) as model,
        _progress(inputs) as progress,
    ):
        none = records.no_embeddings(model)  # refuses a bundle without embeddings, before texts are read
        settings = records.tokenization(model)  # also refuses options without a fitting head
        settings |= {"stride": stride} if overflow is None else {"stride": stride, "overflow": overflow}
        model.tokenize([], **settings)  # refuses wrong options, which are no errors of inputs
        runner = RowRunner(
            tokenize=lambda texts: model.tokenize(records.join(model, texts), **settings),
            make_records=functools.partial(records.make, model),
            on_error=on_error,
        )
        for records_of_chunk in runner.run(progress):
            writer.write(records_of_chunk)
    if runner.errors:
        counts = f"{runner.errors} of {runner.inputs} inputs"
        echo(f"encort: {counts} cannot be used; the first: {runner.first_error}", err=True)


def _progress(inputs: "Iterator[Input]") -> "AbstractContextManager[Iterable[Input]]":
    """Show a counter of texts on stderr, if stderr is a terminal."""
    return click.progressbar(inputs, label="texts", show_pos=True, file=sys.stderr, hidden=not sys.stderr.isatty())
