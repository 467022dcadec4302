"""Read the poolings of a sentence-transformers folder, in the forms of all its versions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encort.runtime.bundle.manifest import Pooling
from encort.runtime.common.checkpoints.files import read_json
from encort.runtime.common.errors import CheckpointError

_OLD_SETTINGS = {
    "pooling_mode_cls_token": Pooling.CLS,
    "pooling_mode_max_tokens": Pooling.MAX,
    "pooling_mode_mean_tokens": Pooling.MEAN,
    "pooling_mode_mean_sqrt_len_tokens": Pooling.MEAN_SQRT_LEN,
    "pooling_mode_weightedmean_tokens": Pooling.WEIGHTED_MEAN,
    "pooling_mode_lasttoken": Pooling.LAST_TOKEN,
}
"""Settings before sentence-transformers 6, one for each pooling, in the order of the concatenation."""
_NAMES = [pooling.value for pooling in Pooling if pooling is not Pooling.POOLER]


@dataclass(frozen=True)
class Poolings:
    """Poolings of a folder.

    Attributes:
        methods: Poolings in the order of their concatenation.
        include_prompt: Whether the tokens of a prompt are pooled.
    """

    methods: list[Pooling]
    include_prompt: bool = True

    @classmethod
    def read(cls, folder: Path, *, methods: list[Pooling] | None = None) -> "Poolings":
        """Read the folder of a pooling; a mean if it has no file.

        Args:
            folder: Folder of the pooling, such as `1_Pooling`.
            methods: Poolings to use instead of the folder's.

        Raises:
            CheckpointError: The file is damaged, or names a pooling that sentence-transformers does not have.
        """
        file = folder / "config.json"
        settings = read_json(file, dict) if file.exists() else {}
        include_prompt = settings.get("include_prompt", True)
        if not isinstance(include_prompt, bool):
            raise CheckpointError(f"{file}: include_prompt is {include_prompt!r}, expected true or false")
        return cls(_methods(file, settings) if methods is None else methods, include_prompt)


def _methods(file: Path, settings: Mapping[str, Any]) -> list[Pooling]:
    names = settings.get("pooling_mode")
    if names is None:
        return [pooling for name, pooling in _OLD_SETTINGS.items() if settings.get(name) is True] or [Pooling.MEAN]
    listed = names if isinstance(names, list) else [names]
    if not listed or any(name not in _NAMES for name in listed):
        raise CheckpointError(
            f"{file}: pooling_mode is {names!r}, expected one or several of {', '.join(_NAMES)}; choose one with "
            "--pooling"
        )
    return [Pooling(name) for name in listed]
