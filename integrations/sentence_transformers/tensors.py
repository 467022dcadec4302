"""All that needs torch: results that are tensors in sentence-transformers too. torch is imported at the first use."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from encort.runtime.common.extras import require

if TYPE_CHECKING:
    from torch import Tensor

SimilarityName = Literal["cosine", "dot", "euclidean", "manhattan"]


EXTRA = "sentence-transformers"
"""Extra of encort with what some calls need: torch, transformers, tqdm."""


def torch_for(call: str) -> Any:
    """Import torch, for a call whose result is a tensor.

    Raises:
        MissingExtraError: torch is not installed.
    """
    require(f"{call}, which is a tensor of torch,", EXTRA, "torch")
    return import_module("torch")


def similarity(name: SimilarityName, first: Any, second: Any) -> "Tensor":
    """Return the similarity of all embeddings with all others, `(first, second)`.

    Args:
        name: Name of the similarity. Distances are negative, so that larger is nearer.
        first: `(n, dim)` or `(dim,)`, an array, a tensor, or a list of them.
        second: Like `first`.
    """
    return _ALL[name](*(_as_float(one, at_least_2d=True) for one in (first, second)))


def similarity_pairwise(name: SimilarityName, first: Any, second: Any) -> "Tensor":
    """Return the similarity of embeddings with the same position, `(n,)`; see `similarity`."""
    return _PAIRWISE[name](*(_as_float(one, at_least_2d=False) for one in (first, second)))


def _as_float(embeddings: Any, *, at_least_2d: bool) -> "Tensor":
    torch = torch_for("the similarity of embeddings")
    if isinstance(embeddings, Sequence) and embeddings and not isinstance(embeddings[0], int | float):
        tensor = torch.stack([torch.as_tensor(one) for one in embeddings])
    else:
        tensor = torch.as_tensor(embeddings)
    if tensor.is_floating_point() and torch.finfo(tensor.dtype).bits < 32:
        tensor = tensor.float()
    return tensor[None] if at_least_2d and tensor.ndim == 1 else tensor  # type: ignore[no-any-return]


def _normalized(embeddings: "Tensor") -> "Tensor":
    return torch_for("the similarity of embeddings").nn.functional.normalize(embeddings, dim=-1)  # type: ignore[no-any-return]


def _distances(first: "Tensor", second: "Tensor", power: float) -> "Tensor":
    return torch_for("the similarity of embeddings").cdist(first, second, p=power)  # type: ignore[no-any-return]


Similarity = Callable[["Tensor", "Tensor"], "Tensor"]
_ALL: Mapping[SimilarityName, Similarity] = {
    "cosine": lambda first, second: _normalized(first) @ _normalized(second).T,
    "dot": lambda first, second: first @ second.T,
    "euclidean": lambda first, second: -_distances(first, second, 2.0),
    "manhattan": lambda first, second: -_distances(first, second, 1.0),
}
_PAIRWISE: Mapping[SimilarityName, Similarity] = {
    "cosine": lambda first, second: (_normalized(first) * _normalized(second)).sum(-1),
    "dot": lambda first, second: (first * second).sum(-1),
    "euclidean": lambda first, second: -(first - second).norm(dim=-1),
    "manhattan": lambda first, second: -(first - second).abs().sum(-1),
}
SIMILARITIES = tuple(_ALL)
