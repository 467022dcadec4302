"""Proof that the variant that will serve gives the results of the export on this machine."""

from pathlib import Path

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import GOLDEN_FILE
from encort.runtime.engine.session import CPU_PROVIDER
from encort.runtime.model import Model, load_with
from encort.runtime.options import LoadOptions
from encort.runtime.verification.golden import GoldenCheck, verify_variant


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


def open_proven(bundle: str | Path, options: LoadOptions) -> tuple[Model, GoldenCheck | None]:
    """Load a bundle, prove it and warm it up.

    Raises:
        EncortError: It cannot be loaded, or does not pass. Nothing stays open.
    """
    model = load_with(bundle, options)
    try:
        proof = prove(model)
        model.warm_up()
    except BaseException:
        model.close()
        raise
    return model, proof


def describe_proof(proof: GoldenCheck | None) -> str:
    """Return what a proof found, for people."""
    if proof is None:
        return "no golden vectors were checked"
    return f"golden vectors of {proof.texts} texts are met, least cosine {proof.min_cosine:.6f}"
