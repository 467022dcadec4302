"""A missing optional dependency is named before any work is done."""

import pytest

from encort.runtime.common.errors import MissingExtraError
from encort.runtime.common.extras import installed_versions, require


def test_what_is_installed_passes():
    require("this", "parquet", "json", "numpy")


def test_what_is_not_installed_gives_the_command():
    with pytest.raises(MissingExtraError, match=r'this needs more packages: pip install "encort\[parquet\]"'):
        require("this", "parquet", "json", "no_such_module_of_encort")


def test_versions_are_those_of_what_is_installed():
    found = installed_versions(["numpy", "no-such-package-of-encort"])
    assert list(found) == ["numpy"]
    assert found["numpy"].split(".")[0].isdecimal()
