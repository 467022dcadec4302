"""The ways that a bundle can be run, each beside what it is chosen against, in turn, medians of one run.

python benchmarks/studies/layout_timing.py BUNDLE

BUNDLE has fp32 and int8 graphs in both layouts. docs/decisions/0003 and 0008 quote what this printed.
"""

import functools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

import encort
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import TOKENIZER_FILE, Layout, Precision
from encort.runtime.common.arrays import Int64Array
from encort.runtime.engine.cores import available_cores
from encort.runtime.engine.session import Session
from encort.runtime.text.token_batch import TokenBatch, padded
from encort.runtime.text.tokenizer import Tokenizer

ROUNDS = 30
TEXT = "a text of about fourteen tokens that we embed once more and"
TEXTS = [" ".join(["my card is lost, change the pin"] * (1 + number % 12)) for number in range(1500)]


def main(folder: str) -> None:
    bundle = Bundle.open(folder)
    for precision in Precision:
        compare_layouts(bundle, precision)
        compare_threads(bundle, precision)
    compare_tokenization(bundle)
    compare_queue(folder)


def compare_layouts(bundle: Bundle, precision: Precision) -> None:
    sessions = {layout: opened(bundle, precision, layout) for layout in (Layout.EQUAL_LENGTH, Layout.RAGGED)}
    for name, lengths in {"16 x 16": [16] * 16, "2 x 128": [128] * 2, "5 to 24, one each": list(range(5, 25))}.items():
        rows = [row(length) for length in lengths]
        together = [padded(rows)]
        alike = together if len(set(lengths)) == 1 else rows
        ways = {
            "equal length": functools.partial(run_each, sessions[Layout.EQUAL_LENGTH], alike),
            "ragged": functools.partial(run_each, sessions[Layout.RAGGED], together),
        }
        report(f"{precision}, {name}, one core", ways)


def compare_threads(bundle: Bundle, precision: Precision) -> None:
    threads = available_cores()
    sessions = {"one core": opened(bundle, precision, Layout.EQUAL_LENGTH)}
    sessions[f"{threads} cores"] = opened(bundle, precision, Layout.EQUAL_LENGTH, threads=threads)
    for length in (16, 128):
        inputs = row(length)
        ways = {name: functools.partial(run, session, inputs) for name, session in sessions.items()}
        report(f"{precision}, one text of {length} tokens", ways)


def compare_tokenization(bundle: Bundle) -> None:
    tokenizer = Tokenizer(bundle.path(TOKENIZER_FILE), max_length=bundle.manifest.max_length)
    ways = {
        "all at once": functools.partial(tokenizer, TEXTS, all_cores=True),
        "one by one": functools.partial(tokenizer, TEXTS),
    }
    report(f"tokens of {len(TEXTS)} texts", ways)


def compare_queue(folder: str) -> None:
    with encort.load(folder, precision="int8") as model, model.serving() as service:
        model.warm_up()
        ways = {
            "model.embed": lambda: model.embed([TEXT]),
            "service.embed": lambda: service.embed(TEXT),
        }
        report(f"int8, one text of {model.tokenize([TEXT]).lengths[0]} tokens, tokenization included", ways)


def opened(bundle: Bundle, precision: Precision, layout: Layout, *, threads: int = 1) -> Session:
    variant = next(v for v in bundle.manifest.variants if (v.precision, v.layout) == (precision, layout))
    return Session(bundle.graph(variant), variant, threads=threads)


def row(length: int) -> dict[str, Int64Array]:
    ids = np.arange(1000, 1000 + length)
    batch = TokenBatch(
        ids=ids, type_ids=np.zeros_like(ids), cu_seqlens=np.array([0, length]), truncated=np.zeros(1, np.bool_)
    )
    return batch.rows(np.array([0]))


def run(session: Session, inputs: Mapping[str, Int64Array]) -> object:
    return session.run(["sentence_embedding"], inputs)


def run_each(session: Session, micro_batches: Sequence[Mapping[str, Int64Array]]) -> None:
    for inputs in micro_batches:
        run(session, inputs)


def report(what: str, ways: Mapping[str, Callable[[], object]]) -> None:
    """Each way several times, since the first run after another's finds its threads asleep."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            way()
            begin = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - begin)
    print(f"{what}: " + ", ".join(f"{name} {1e3 * statistics.median(each):.2f} ms" for name, each in times.items()))


if __name__ == "__main__":
    main(sys.argv[1])
