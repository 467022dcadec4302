"""Read licence and origin from the model card (`README.md`) of a checkpoint."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load

from encort.runtime.common.files import check_regular
from encort.runtime.common.output.escaping import is_unicode

log = logging.getLogger("encort")

CARD_FILE = "README.md"
_LARGEST_CARD = 2**20
"""Largest size of a model card, in bytes."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Metadata of a model card.

    Attributes:
        license: Licence; None: it does not say.
        base_model: Hub id of the model that the checkpoint was trained from; None: none or several.
    """

    license: str | None = None
    base_model: str | None = None

    @classmethod
    def read(cls, folder: Path) -> "ModelCard":
        """Read the card of a checkpoint. A folder without a readable card has an empty one."""
        file = folder / CARD_FILE
        if not file.exists():
            return cls()
        try:
            check_regular(file, largest=_LARGEST_CARD)
            metadata: Any = metadata_load(file)
        except Exception as error:  # also those of the YAML parser, which have no narrower parent
            log.warning("%s cannot be read (%s), so the bundle does not know the licence", file, error)
            return cls()
        values = metadata if isinstance(metadata, dict) else {}
        return cls(license=_name(values.get("license")), base_model=_name(values.get("base_model")))


def _name(value: Any) -> str | None:
    """Return a value that is one name; a list may hold it."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    return value if isinstance(value, str) and is_unicode(value) else None
