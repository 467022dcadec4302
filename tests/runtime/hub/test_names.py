"""Names of bundles on the hub."""

import pytest

from encort.runtime.common.errors import InputError
from encort.runtime.hub.names import HubName, is_hub_name


@pytest.mark.parametrize(
    ("text", "repo", "revision"),
    [
        ("hf://org/name", "org/name", None),
        ("org/name", "org/name", None),
        ("hf://a/b.c-d_e@v1.0", "a/b.c-d_e", "v1.0"),
        ("hf://org/name@feature/int8--next", "org/name", "feature/int8--next"),
        ("hf://org/name@refs/pr/1", "org/name", "refs/pr/1"),
    ],
)
def test_a_name_has_a_repository_and_perhaps_a_revision(text: str, repo: str, revision: str | None) -> None:
    assert HubName.parse(text) == HubName(repo, revision)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "hf://",
            "hf://name",
            "hf:///name",
            "hf://org/",
            "hf://org/name/file",
            "hf://../name",
            "hf://org/..",
            "hf://o/n.git",
        ),
        *(
            "hf://org/a--b",
            "hf://org/-name",
            "hf://org/na me",
            "hf://org/n?x=1",
            "hf://org/n%2e",
            "hf://org/\nname",
            "hf://조직/이름",
        ),
        *("hf://org/name@", "hf://org/name@../../etc", "hf://org/name@/a", "hf://org/name@a/", "hf://org/name@a//b"),
        *("hf://org/name@a/.b", "hf://org/name@a@b", "hf://org/name@-x", "hf://org/name@a b", f"hf://org/{'n' * 97}"),
    ],
)
def test_what_could_be_a_path_or_another_address_is_no_name(text: str) -> None:
    with pytest.raises(InputError, match="expected"):
        HubName.parse(text)


def test_only_a_name_with_its_prefix_is_no_folder() -> None:
    assert is_hub_name("hf://org/name")
    assert not is_hub_name("org/name")
    assert not is_hub_name("./hf://org/name")
