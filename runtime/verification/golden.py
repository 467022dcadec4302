"""Check variants against the golden vectors of their bundle.

With them, `encort verify` repeats the proof of the export on any machine, without torch.
"""

import functools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np

from encort.runtime.bundle.bundle import Bundle, runs_here
from encort.runtime.bundle.manifest import GOLDEN_FILE, TOKENIZER_FILE, Device, Layout, Variant
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.common.errors import BundleError, DeviceError, FidelityError
from encort.runtime.cuda.workers import open_devices
from encort.runtime.engine.session import Runner, Session, has_device
from encort.runtime.text.masks import with_any_positions
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.verification.golden_spans import count_changed_texts
from encort.runtime.verification.golden_vectors import Golden, GoldenSamples
from encort.runtime.verification.masked_rows import has_token_rows, run_rows
from encort.runtime.verification.tolerance import COSINE_SLACK, cosines, error_limit, neighbour_limit

log = logging.getLogger("encort")

FOREIGN_COSINE = 0.99
"""Least cosine to golden vectors on another execution provider. It may use bfloat16, which reaches 0.9999."""

_ROWS = 8
"""Texts that are run together, to see whether they change each other's results."""


@dataclass(frozen=True, kw_only=True)
class GoldenCheck:
    """Difference between one variant and the golden vectors on this machine.

    Attributes:
        variant: Name of the variant.
        texts: Number of sample texts.
        max_abs_error: Largest absolute difference of each output.
        mean_cosine: Mean cosine between the vectors of `Variant.vector`.
        min_cosine: Smallest of these cosines.
        changed_texts: Number of texts with other spans; see `count_changed_texts`.
    """

    variant: str
    texts: int
    max_abs_error: Mapping[str, float]
    mean_cosine: float
    min_cosine: float
    changed_texts: int | None


def verify_bundle(bundle: Bundle) -> list[GoldenCheck]:
    """Check the hash of every file, the tokenizer, and the results of every variant that this machine can run.

    Returns:
        One check per variant that was run.

    Raises:
        BundleFileMissingError: A file is missing.
        BundleFileChangedError: The hash of a file differs, or the tokenizer gives other ids than at export.
        FidelityError: The results of a variant differ by more than the tolerance of its precision.
    """
    for name in bundle.manifest.files:
        bundle.check(name)
    samples = GoldenSamples.of(bundle, bundle.manifest.variants)
    variants = [variant for variant in bundle.manifest.variants if runs_here(variant) and has_device(variant.device)]
    checks = []
    for variant in variants:
        try:
            checks.append(_check(bundle, variant, samples))
        except DeviceError as error:  # the library is installed, but there is no device
            log.warning("%s is not checked: %s", variant.name, error)
    return checks


def verify_variant(bundle: Bundle, variant: Variant) -> GoldenCheck:
    """Check the tokenizer, and the results of one variant on this machine.

    Raises:
        BundleError: A file is missing or changed.
        DeviceError: The machine does not have the variant's device.
        FidelityError: The results differ by more than the tolerance of the variant's precision.
    """
    return _check(bundle, variant, GoldenSamples.of(bundle, [variant]))


def check_results(
    bundle: Bundle,
    variant: Variant,
    session: Runner,
    tokenizer: Tokenizer,
    *,
    least_cosine: float = FOREIGN_COSINE,
    most_texts: int | None = None,
) -> None:
    """Compare a session with the golden vectors, for a provider or a processor that the export did not run.

    Texts are run one at a time and all together.

    Args:
        bundle: The bundle.
        variant: Variant of the session.
        session: The session to check.
        tokenizer: The bundle's tokenizer, with the bundle's own limit, by which the golden texts were cut.
        least_cosine: Least cosine to a golden vector.
        most_texts: Run only that many texts, from the shortest to the longest; all by default.

    Raises:
        FidelityError: A cosine to a golden vector is below `least_cosine`.
    """
    golden = Golden.load(bundle.read(GOLDEN_FILE))
    batch = tokenizer(golden.texts, reverse=variant.reads_reversed, return_prompt_length=variant.reads_prompt_length)
    batch = with_any_positions(batch)
    chosen = _sample_lengths(batch, most_texts or len(batch))
    vectors = list(_split_by_text(golden.outputs[variant.vector], batch))
    expected = [vectors[index] for index in chosen]
    alone = [session.run([variant.vector], batch.rows(np.array([index])))[0][0] for index in chosen]
    (rows,) = session.run([variant.vector], batch.rows(chosen))
    is_tokenwise = variant.is_tokenwise(variant.vector)
    together = [row[:length] if is_tokenwise else row for row, length in zip(rows, batch.lengths[chosen], strict=True)]
    similarities = np.concatenate([cosines(results, expected) for results in (alone, together)])
    if not similarities.min() >= least_cosine:
        raise FidelityError(
            f"on this machine {variant.name} has a cosine of {similarities.min():.4f} to a golden vector; below "
            f"{least_cosine} it is not the model that was exported: change the provider or its options, or leave it out"
        )


def shortest_sample(bundle: Bundle, variant: Variant) -> tuple[TokenBatch, FloatArray]:
    """Return the shortest golden text as tokens, and the rows of `Variant.vector` that it must give.

    Raises:
        BundleError: The golden vectors are missing or damaged.
    """
    bundle = Bundle.open(bundle.folder)  # with its own limit, by which the golden texts were cut
    golden = Golden.load(bundle.read(GOLDEN_FILE))
    tokenize = functools.partial(
        Tokenizer(bundle.read(TOKENIZER_FILE), max_length=bundle.manifest.max_length),
        reverse=variant.reads_reversed,
        return_prompt_length=variant.reads_prompt_length,
    )
    batch, expected = tokenize(golden.texts), golden.outputs[variant.vector]
    index = int(batch.lengths.argmin())
    start, stop = batch.cu_seqlens[index : index + 2] if variant.is_tokenwise(variant.vector) else (index, index + 1)
    return tokenize([golden.texts[index]]), expected[start:stop]


def check_sample(variant: Variant, rows: FloatArray, expected: FloatArray) -> None:
    """Compare rows of `Variant.vector` with those of a golden text.

    Raises:
        FidelityError: A cosine between them is below that of the certificate, and below that of other providers.
    """
    certified = 1.0 if variant.fidelity is None else variant.fidelity.min_cosine - COSINE_SLACK
    least, cosine = min(FOREIGN_COSINE, certified), float(cosines(rows, expected).min())
    if not cosine >= least:  # NaN must fail too
        raise FidelityError(
            f"{variant.name} gives a golden text a cosine of {cosine:.4f}, and {least:.4f} is the least: this process "
            "serves wrong results; start it again"
        )


def _sample_lengths(batch: TokenBatch, count: int) -> Int64Array:
    """Return the indices of that many texts, evenly spaced from the shortest to the longest."""
    places = np.linspace(0, len(batch) - 1, min(count, len(batch))).round().astype(np.int64)
    return np.argsort(batch.lengths, kind="stable")[places]


def _check(bundle: Bundle, variant: Variant, samples: GoldenSamples) -> GoldenCheck:
    golden, batch = samples.golden, samples.batch
    names = [name for name in golden.outputs if name in variant.outputs]
    if variant.vector not in names:
        raise BundleError(f"{GOLDEN_FILE} lacks {variant.vector} of {variant.name}; export the bundle again")
    with _open_session(bundle, variant) as session:
        heads = bundle.manifest.heads
        runs = [run_rows(session, variant, names, batch.rows(np.array([i])), heads) for i in range(len(batch))]
        if variant.layout is not Layout.EQUAL_LENGTH:
            alone = [run[names.index(variant.vector)][0] for run in runs]
            _check_neighbours(bundle, variant, session, batch, alone)
    outputs = {
        # Without the batch axis, the tokens of all texts can be concatenated.
        name: np.concatenate([array[0] if has_token_rows(variant, name, heads) else array for array in column])
        for name, column in zip(names, zip(*runs, strict=True), strict=True)
    }
    if any(outputs[name].shape != golden.outputs[name].shape for name in names):
        raise BundleError(f"{GOLDEN_FILE} has other shapes than the graph's outputs; export the bundle again")
    errors = {name: float(np.abs(outputs[name] - golden.outputs[name]).max()) for name in names}
    for name, error in errors.items():
        limit = error_limit(variant.precision, name, bundle.manifest.embedding)
        if not error <= limit:  # NaN must fail too
            raise FidelityError(
                f"variant {variant.name} differs from its golden vectors by {error:.2g} in {name} on this machine; "
                f"the limit is {limit:g}; do not serve it here, export the bundle on this kind of machine"
            )
    similarities = cosines(
        _split_by_text(outputs[variant.vector], batch), _split_by_text(golden.outputs[variant.vector], batch)
    )
    check = GoldenCheck(
        variant=variant.name,
        texts=len(batch),
        max_abs_error=errors,
        mean_cosine=float(similarities.mean()),
        min_cosine=float(similarities.min()),
        changed_texts=count_changed_texts(bundle.manifest.heads, batch, outputs, golden.outputs, samples.marks),
    )
    _check_certificate(variant, check)
    return check


def _check_neighbours(
    bundle: Bundle, variant: Variant, session: Runner, batch: TokenBatch, alone: Sequence[FloatArray]
) -> None:
    """Compare the results of texts among others, with padding, with their results alone."""
    for start in range(0, len(batch), _ROWS):
        indices = range(start, min(start + _ROWS, len(batch)))
        (rows,) = session.run([variant.vector], batch.rows(np.array(indices)))
        for index, row in zip(indices, rows, strict=True):
            own = row[: batch.lengths[index]] if variant.is_tokenwise(variant.vector) else row
            difference = float(np.abs(own - alone[index]).max())
            limit = neighbour_limit(variant.precision, variant.vector, bundle.manifest.embedding)
            if not difference <= limit:  # NaN must fail too
                raise FidelityError(
                    f"variant {variant.name}: {variant.vector} of a text changes by {difference:.2g} with its "
                    f"neighbours; the limit is {limit:g}; do not serve it, export the bundle again"
                )


@contextmanager
def _open_session(bundle: Bundle, variant: Variant) -> Iterator[Runner]:
    graph = bundle.graph(variant)
    if variant.device is Device.CPU:
        yield Session(graph, variant, threads=1)
        return
    with closing(open_devices(graph, variant, [0], {}, max_length=bundle.manifest.max_length)) as devices:
        yield devices


def _check_certificate(variant: Variant, check: GoldenCheck) -> None:
    if variant.fidelity is None:
        raise BundleError(f"variant {variant.name} has no certificate; export the bundle again")
    certified = variant.fidelity.min_cosine
    if not check.min_cosine >= certified - COSINE_SLACK:
        raise FidelityError(
            f"variant {variant.name} has a cosine of {check.min_cosine:.4f} to a golden vector on this machine, and "
            f"{certified:.4f} in its certificate; do not serve it here, export the bundle on this kind of machine"
        )


def _split_by_text(rows: FloatArray, batch: TokenBatch) -> Iterable[FloatArray]:
    """Return one array per text, from one row per text or one row per token."""
    return rows if len(rows) == len(batch) else np.split(rows, batch.cu_seqlens[1:-1])
