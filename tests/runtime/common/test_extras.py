"""A missing optional package is an error before any work is done."""

import pytest

from encort.runtime.common.errors import MissingExtraError
from encort.runtime.common.extras import installed_versions, require


def test_installed_modules_pass() -> None:
    require("this", "parquet", "json", "numpy")


def test_a_missing_module_gives_the_install_command() -> None:
    with pytest.raises(MissingExtraError, match=r'this needs more packages: pip install "encort\[parquet\]"'):
        require("this", "parquet", "json", "no_such_module_of_encort")


def test_versions_are_only_of_installed_packages() -> None:
    versions = installed_versions(["numpy", "no-such-package-of-encort"])
    assert list(versions) == ["numpy"]
    assert versions["numpy"].split(".")[0].isdecimal()
