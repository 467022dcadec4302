"""Golden vectors: what eager PyTorch gave for the sample texts, kept in the bundle.

With them `encort verify` repeats the proof on any machine, without torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from encort.runtime.bundle import Bundle
from encort.runtime.errors import BundleError, BundleFileChangedError, FidelityError
from encort.runtime.manifest import GOLDEN_FILE, TOKENIZER_FILE, TOLERANCES, Output, Variant
from encort.runtime.session import FloatArray, Session, graph_inputs
from encort.runtime.tokenizer import Tokenizer
from encort.runtime.tokens import Int64Array, TokenBatch


@dataclass(frozen=True, eq=False, kw_only=True)
class Golden:
    """Sample texts, their token ids, and the expected outputs.

    Attributes:
        ids: `(tokens,)` int64, as the checkpoint's own tokenizer gives them.
        outputs: `(n, dim)` float32 by name.
    """

    texts: Sequence[str]
    ids: Int64Array
    outputs: Mapping[Output, FloatArray]

    def save(self, file: Path) -> None:
        arrays = {name.value: array for name, array in self.outputs.items()}
        np.savez(file, texts=np.array(self.texts), ids=self.ids, **arrays)  # type: ignore[arg-type] # numpy's stub

    @classmethod
    def load(cls, file: Path) -> "Golden":
        """Read golden vectors.

        Raises:
            BundleError: The file does not hold them.
        """
        try:
            with np.load(file, allow_pickle=False) as arrays:
                names = [Output(name) for name in arrays if name not in {"texts", "ids"}]
                outputs = {name: arrays[name.value] for name in names}
                golden = cls(texts=arrays["texts"].tolist(), ids=arrays["ids"], outputs=outputs)
        except (BadZipFile, EOFError, KeyError, OSError, TypeError, ValueError) as error:
            raise BundleError(f"{file} holds no golden vectors ({error}); export the bundle again") from error
        if not golden.texts or {len(array) for array in outputs.values()} != {len(golden.texts)}:
            raise BundleError(f"{file} does not have one golden vector a text; export the bundle again")
        return golden


@dataclass(frozen=True, kw_only=True)
class GoldenCheck:
    """How far one variant is from the golden vectors on this machine, by output."""

    variant: str
    texts: int
    max_abs_error: Mapping[str, float]


def verify_bundle(bundle: Bundle) -> list[GoldenCheck]:
    """Check every file's hash, the tokenizer and every variant's results on this machine.

    Raises:
        BundleFileMissingError: A file is not there.
        BundleFileChangedError: A file's hash differs, or the tokenizer gives other ids than at export.
        FidelityError: A variant's results are past the tolerance of its precision.
    """
    for name in bundle.manifest.files:
        bundle.path(name)
    golden = Golden.load(bundle.path(GOLDEN_FILE))
    tokenizer = Tokenizer(bundle.path(TOKENIZER_FILE), max_length=bundle.manifest.max_length)
    batch = tokenizer(golden.texts)
    if not np.array_equal(batch.ids, golden.ids):
        raise BundleFileChangedError(
            f"{bundle.folder}: the tokenizer gives other ids than at export; install the tokenizers version of "
            f"encort.json ({bundle.manifest.tools.get('tokenizers', 'unknown')}), or export again"
        )
    return [_check(bundle, variant, batch, golden) for variant in bundle.manifest.variants]


def _check(bundle: Bundle, variant: Variant, batch: TokenBatch, golden: Golden) -> GoldenCheck:
    session = Session(bundle, variant, threads=1)
    names = list(golden.outputs)
    rows = [
        session.run(names, graph_inputs(variant.layout, *batch.rows(np.array([index])))) for index in range(len(batch))
    ]
    found = {name: np.concatenate(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    if any(found[name].shape != golden.outputs[name].shape for name in names):
        raise BundleError(f"{GOLDEN_FILE} has other shapes than the graph's outputs; export the bundle again")
    errors = {name.value: float(np.abs(found[name] - golden.outputs[name]).max()) for name in names}
    limit = TOLERANCES[variant.precision]
    for name, error in errors.items():
        if not error <= limit:  # NaN must fail too
            raise FidelityError(
                f"variant {variant.name} differs from its golden vectors by {error:.2g} in {name} on this machine; "
                f"the limit is {limit:g}; do not serve it here, export the bundle on this kind of machine"
            )
    return GoldenCheck(variant=variant.name, texts=len(batch), max_abs_error=errors)
