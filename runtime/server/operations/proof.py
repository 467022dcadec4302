"""`Prepared`: a model that may serve, with the proof that it gives the results of the export on this machine."""

from dataclasses import dataclass
from pathlib import Path

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import GOLDEN_FILE, Precision
from encort.runtime.engine.session import CPU_PROVIDER
from encort.runtime.model import Model, load_with
from encort.runtime.options import LoadOptions
from encort.runtime.verification.golden import GoldenCheck, verify_variant


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A model that may serve.

    Attributes:
        model: The loaded bundle.
        proof: What the golden vectors showed; None if they were not checked.
        reference: The bundle in fp32, on one core, for `DriftShadow`; None if nothing is compared.
    """

    model: Model
    proof: GoldenCheck | None
    reference: Model | None

    def close_reference(self) -> None:
        """Close the reference."""
        if self.reference is not None:
            self.reference.close()


def prepare(model: Model, *, with_reference: bool) -> Prepared:
    """Prove a model.

    Args:
        model: The model.
        with_reference: Whether it is to be compared with fp32, unless it is fp32 itself.

    Raises:
        BundleError: A file is missing or changed, or the bundle has no fp32 variant.
        FidelityError: The results differ by more than the variant's tolerance.
    """
    proof, reference = prove(model), None
    if with_reference and model.variant.precision is not Precision.FP32:
        reference = load_with(
            model.bundle.folder, LoadOptions(precision="fp32", threads=1, max_length=model.options.max_length)
        )
    return Prepared(model=model, proof=proof, reference=reference)


def prove(model: Model) -> GoldenCheck | None:
    """Check the golden vectors on the variant of a model.

    Returns:
        What differs; None for a bundle without golden vectors, and on GPUs and other providers, where the model has
        compared its own sessions.

    Raises:
        BundleError: A file is missing or changed.
        FidelityError: The results differ by more than the variant's tolerance.
    """
    is_checked_elsewhere = model.options.gpu_numbers or model.options.execution_provider != CPU_PROVIDER
    if is_checked_elsewhere or GOLDEN_FILE not in model.manifest.files:
        return None
    # The model's own bundle may have a lower limit than the golden vectors need.
    return verify_variant(Bundle.open(model.bundle.folder), model.variant)


def open_prepared(bundle: str | Path, options: LoadOptions, *, with_reference: bool) -> Prepared:
    """Load a bundle, prove it and warm it up.

    Raises:
        EncortError: It cannot be loaded, or does not pass. Nothing stays open.
    """
    model = load_with(bundle, options)
    try:
        prepared = prepare(model, with_reference=with_reference)
        model.warm_up()
    except BaseException:
        model.close()
        raise
    return prepared


def describe_proof(proof: GoldenCheck | None) -> str:
    """Return what a proof found, for people."""
    if proof is None:
        return "no golden vectors were checked"
    return f"golden vectors of {proof.texts} texts are met, least cosine {proof.min_cosine:.6f}"
