"""A missing optional dependency is named before any work is done."""

import pytest

from encort.runtime.errors import MissingExtraError
from encort.runtime.extras import require


def test_what_is_installed_passes():
    require("this", "parquet", "json", "numpy")


def test_what_is_not_installed_gives_the_command():
    with pytest.raises(MissingExtraError, match=r'this needs more packages: pip install "encort\[parquet\]"'):
        require("this", "parquet", "json", "no_such_module_of_encort")
