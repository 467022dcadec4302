"""Run with `python -m encort.benchmarks.gpu`."""

from encort.benchmarks.gpu.race import main

main()
