"""Facts of operations about one served model, for `/info`."""

from dataclasses import asdict
from typing import Any

from encort.runtime.server.models import ServedModel


def facts(served: ServedModel) -> dict[str, Any]:
    """Return what the start found about a model, and its drift since then; a value of JSON.

    Args:
        served: The model.
    """
    return {
        "golden_vectors": None if served.proof is None else asdict(served.proof),
        "drift": None if served.shadow is None else served.shadow.summary,
    }
