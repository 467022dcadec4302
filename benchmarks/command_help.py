"""A module's docstring as the help of its command."""


def command_help(docstring: str | None) -> str:
    """Return a docstring as click's help text, with indented examples line by line.

    Args:
        docstring: The module's `__doc__`.
    """
    return (docstring or "").replace("\n\n    ", "\n\n\b\n    ")
