"""Compare layouts, threads, tokenization and the service's queue with their alternatives: medians, in turn.

python benchmarks/studies/layout_timing.py BUNDLE

BUNDLE needs fp32 and int8 graphs in both layouts. docs/decisions/0003 and 0008 quote the output.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

import encort
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import TOKENIZER_FILE, Layout, Precision
from encort.runtime.common.arrays import Int64Array
from encort.runtime.engine.cores import available_cores
from encort.runtime.engine.session import Session
from encort.runtime.text.token_batch import TokenBatch, pad_rows
from encort.runtime.text.tokenizer import Tokenizer

ROUNDS = 30
TEXT = "a text of about fourteen tokens that we embed once more and"
TEXTS = [" ".join(["my card is lost, change the pin"] * (1 + number % 12)) for number in range(1500)]


def main(folder: str) -> None:
    """Print all comparisons for a bundle."""
    bundle = Bundle.open(folder)
    for precision in Precision:
        compare_layouts(bundle, precision)
        compare_threads(bundle, precision)
    compare_tokenization(bundle)
    compare_queue(folder)


def compare_layouts(bundle: Bundle, precision: Precision) -> None:
    """Compare one run per length with one ragged run."""
    sessions = {layout: open_session(bundle, precision, layout) for layout in (Layout.EQUAL_LENGTH, Layout.RAGGED)}
    for name, lengths in {"16 x 16": [16] * 16, "2 x 128": [128] * 2, "5 to 24, one each": list(range(5, 25))}.items():
        rows = [row(length) for length in lengths]
        one_batch = [pad_rows(rows)]
        equal_length = one_batch if len(set(lengths)) == 1 else rows
        calls = {
            "equal length": functools.partial(run_each, sessions[Layout.EQUAL_LENGTH], equal_length),
            "ragged": functools.partial(run_each, sessions[Layout.RAGGED], one_batch),
        }
        report(f"{precision}, {name}, one core", calls)


def compare_threads(bundle: Bundle, precision: Precision) -> None:
    """Compare one core with all cores, for one text."""
    threads = available_cores()
    sessions = {"one core": open_session(bundle, precision, Layout.EQUAL_LENGTH)}
    sessions[f"{threads} cores"] = open_session(bundle, precision, Layout.EQUAL_LENGTH, threads=threads)
    for length in (16, 128):
        inputs = row(length)
        calls = {name: functools.partial(run, session, inputs) for name, session in sessions.items()}
        report(f"{precision}, one text of {length} tokens", calls)


def compare_tokenization(bundle: Bundle) -> None:
    """Compare the tokenizer's own threads with a loop over the texts."""
    tokenizer = Tokenizer(bundle.read(TOKENIZER_FILE), max_length=bundle.manifest.max_length)
    calls = {
        "all at once": functools.partial(tokenizer, TEXTS, all_cores=True),
        "one by one": functools.partial(tokenizer, TEXTS),
    }
    report(f"tokens of {len(TEXTS)} texts", calls)


def compare_queue(folder: str) -> None:
    """Compare a direct call with a call through the service."""
    with encort.load(folder, precision="int8") as model, model.serving() as service:
        model.warm_up()
        calls = {
            "model.embed": lambda: model.embed([TEXT]),
            "service.embed": lambda: service.embed(TEXT),
        }
        report(f"int8, one text of {model.tokenize([TEXT]).lengths[0]} tokens, tokenization included", calls)


def open_session(bundle: Bundle, precision: Precision, layout: Layout, *, threads: int = 1) -> Session:
    """Open the bundle's variant of this precision and layout."""
    variant = next(v for v in bundle.manifest.variants if (v.precision, v.layout) == (precision, layout))
    return Session(bundle.graph(variant), variant, threads=threads)


def row(length: int) -> dict[str, Int64Array]:
    """Return the inputs of one text with this many tokens."""
    ids = np.arange(1000, 1000 + length)
    batch = TokenBatch(
        ids=ids, type_ids=np.zeros_like(ids), cu_seqlens=np.array([0, length]), truncated=np.zeros(1, np.bool_)
    )
    return batch.rows(np.array([0]))


def run(session: Session, inputs: Mapping[str, Int64Array]) -> object:
    """Run one micro-batch."""
    return session.run(["sentence_embedding"], inputs)


def run_each(session: Session, micro_batches: Sequence[Mapping[str, Int64Array]]) -> None:
    """Run the micro-batches, one after the other."""
    for inputs in micro_batches:
        run(session, inputs)


def report(title: str, calls: Mapping[str, Callable[[], object]]) -> None:
    """Time each call in turn, always after an untimed one: the first call after another's finds its threads asleep."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call()
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    print(f"{title}: " + ", ".join(f"{name} {1e3 * median:.2f} ms" for name, median in medians.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    main(parser.parse_args().bundle)
