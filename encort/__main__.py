"""`python -m encort` is the `encort` command."""

from encort.runtime.cli import main

main()
