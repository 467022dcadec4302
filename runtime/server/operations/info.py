"""Facts of operations about one served model, for `/info`."""

from dataclasses import asdict
from typing import Any

from encort.runtime.server.models import ServedModel
from encort.runtime.server.operations.shared import SharedFolder


def facts(served: ServedModel, shared: SharedFolder | None) -> dict[str, Any]:
    """Return what the start found about a model, and its drift since then; a value of JSON.

    Args:
        served: The model.
        shared: Has the drift in the other processes of the server; None: there are none.
    """
    others = [] if shared is None else shared.drift_of_others(served.name)
    return {
        "golden_vectors": None if served.proof is None else asdict(served.proof),
        "drift": None if served.shadow is None else served.shadow.summary(others),
    }
