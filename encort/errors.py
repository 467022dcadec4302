"""Every error that encort raises; the tree is drawn in `encort.runtime.common.errors`."""

from encort.runtime.common.errors import *  # noqa: F403 - the names are that module's `__all__`
from encort.runtime.common.errors import __all__  # noqa: F401 - what this module exports
