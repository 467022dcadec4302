"""Golden vectors: the outputs of eager PyTorch for the sample texts, which the bundle keeps.

With them, `encort verify` repeats the proof of the export on any machine, without torch.
"""

import io
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np

from encort.runtime.bundle.bundle import Bundle, runs_here
from encort.runtime.bundle.manifest import GOLDEN_FILE, TOKENIZER_FILE, Device, Layout, Variant
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.common.errors import BundleError, BundleFileChangedError, DeviceError, FidelityError
from encort.runtime.common.files import parse_json
from encort.runtime.cuda.workers import open_devices
from encort.runtime.engine.session import Runner, Session, has_device
from encort.runtime.text.token_batch import Text, TokenBatch
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.text.words import SubwordMarks
from encort.runtime.verification.golden_spans import count_changed_texts
from encort.runtime.verification.tolerance import COSINE_SLACK, cosines, error_limit, neighbour_limit

log = logging.getLogger("encort")

FOREIGN_COSINE = 0.99
"""Least cosine to golden vectors on another execution provider. It may use bfloat16, which reaches 0.9999."""

_ROWS = 8
"""Texts that are run together, to see whether they change each other's results."""
_LARGEST_UNPACKED = 2**30
"""Largest size of all golden vectors, in bytes. Hidden states are not among them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Golden:
    """Sample texts, their token ids, and the expected outputs.

    Attributes:
        texts: Sample texts.
        ids: Token ids of all texts from the checkpoint's own tokenizer, `(tokens,)` int64.
        outputs: Outputs by name, float32, with one row per text or one row per token.
    """

    texts: Sequence[Text]
    ids: Int64Array
    outputs: Mapping[str, FloatArray]

    def save(self, file: Path) -> None:
        """Write golden vectors to an .npz file."""
        arrays = {f"output:{name}": array for name, array in self.outputs.items()}
        np.savez(file, texts=np.array(json.dumps(self.texts)), ids=self.ids, **arrays)  # type: ignore[arg-type] # numpy's stub

    @classmethod
    def load(cls, content: bytes) -> "Golden":
        """Read golden vectors from the content of an .npz file.

        Raises:
            BundleError: The content has no golden vectors.
        """
        try:
            _check_unpacked_size(content)
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                texts = [_text(text) for text in parse_json(str(arrays["texts"]))]
                outputs = {name.removeprefix("output:"): arrays[name] for name in arrays if name.startswith("output:")}
                golden = cls(texts=texts, ids=arrays["ids"], outputs=outputs)
        except (BadZipFile, EOFError, KeyError, MemoryError, OSError, TypeError, ValueError, zlib.error) as error:
            raise BundleError(f"{GOLDEN_FILE} holds no golden vectors ({error}); export the bundle again") from error
        if not texts or any(
            array.ndim == 0 or len(array) not in (len(texts), len(golden.ids)) for array in outputs.values()
        ):
            raise BundleError(f"{GOLDEN_FILE} does not have one golden vector per text; export the bundle again")
        return golden


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
    golden = Golden.load(bundle.read(GOLDEN_FILE))
    tokenizer = Tokenizer(bundle.read(TOKENIZER_FILE), max_length=bundle.manifest.max_length)
    batch = tokenizer(
        golden.texts,
        return_offsets=any(head.task.is_tokenwise for head in bundle.manifest.heads),
        reverse=any(variant.reads_reversed for variant in bundle.manifest.variants),
        return_prompt_length=any(variant.reads_prompt_length for variant in bundle.manifest.variants),
    )
    if not np.array_equal(batch.ids, golden.ids):
        raise BundleFileChangedError(
            f"{bundle.folder}: the tokenizer gives other ids than at export; install the tokenizers version of "
            f"encort.json ({bundle.manifest.tools.get('tokenizers', 'unknown')}), or export again"
        )
    variants = [variant for variant in bundle.manifest.variants if runs_here(variant) and has_device(variant.device)]
    checks = []
    for variant in variants:
        try:
            checks.append(_check(bundle, variant, batch, golden, tokenizer.subword_marks))
        except DeviceError as error:  # the library is installed, but there is no device
            log.warning("%s is not checked: %s", variant.name, error)
    return checks


def check_results(bundle: Bundle, variant: Variant, session: Runner) -> None:
    """Compare a session with the golden vectors, for an execution provider that the export did not run.

    Texts are run one at a time and all together.

    Args:
        bundle: The bundle.
        variant: Variant of the session.
        session: The session to check.

    Raises:
        FidelityError: A cosine to a golden vector is below `FOREIGN_COSINE`.
    """
    golden = Golden.load(bundle.read(GOLDEN_FILE))
    tokenizer = Tokenizer(bundle.read(TOKENIZER_FILE), max_length=bundle.manifest.max_length)
    batch = tokenizer(golden.texts, reverse=variant.reads_reversed, return_prompt_length=variant.reads_prompt_length)
    expected = list(_split_by_text(golden.outputs[variant.vector], batch))
    alone = [session.run([variant.vector], batch.rows(np.array([index])))[0][0] for index in range(len(batch))]
    (rows,) = session.run([variant.vector], batch.rows(np.arange(len(batch))))
    is_tokenwise = variant.is_tokenwise(variant.vector)
    together = [row[:length] if is_tokenwise else row for row, length in zip(rows, batch.lengths, strict=True)]
    similarities = np.concatenate([cosines(results, expected) for results in (alone, together)])
    if not similarities.min() >= FOREIGN_COSINE:
        raise FidelityError(
            f"on this provider {variant.name} has a cosine of {similarities.min():.4f} to a golden vector; below "
            f"{FOREIGN_COSINE} it is not the model that was exported: change the provider's options, or leave it out"
        )


def _check_unpacked_size(content: bytes) -> None:
    with ZipFile(io.BytesIO(content)) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > _LARGEST_UNPACKED:
        raise ValueError(f"it unpacks to {size:,} bytes, more than any golden vectors")


def _text(value: object) -> Text:
    """Return a text or a pair from a JSON value."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value):
        return value[0], value[1]
    raise ValueError("a text is neither a string nor a pair of strings")


def _check(bundle: Bundle, variant: Variant, batch: TokenBatch, golden: Golden, marks: SubwordMarks) -> GoldenCheck:
    names = [name for name in golden.outputs if name in variant.outputs]
    if variant.vector not in names:
        raise BundleError(f"{GOLDEN_FILE} lacks {variant.vector} of {variant.name}; export the bundle again")
    with _open_session(bundle, variant) as session:
        runs = [session.run(names, batch.rows(np.array([index]))) for index in range(len(batch))]
        if variant.layout is not Layout.EQUAL_LENGTH:
            alone = [run[names.index(variant.vector)][0] for run in runs]
            _check_neighbours(bundle, variant, session, batch, alone)
    outputs = {
        # Without the batch axis, the tokens of all texts can be concatenated.
        name: np.concatenate([array[0] if variant.is_tokenwise(name) else array for array in column])
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
        changed_texts=count_changed_texts(bundle.manifest.heads, batch, outputs, golden.outputs, marks),
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
