"""Run the checks and the race on a GPU: `python -m encort.benchmarks.gpu`."""

from encort.benchmarks.gpu.race import main

main()
