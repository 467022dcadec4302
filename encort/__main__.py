"""`python -m encort` is the `encort` command."""

from encort.runtime.cli.main import main

main()
