"""Compute time and cost of a large job from measured tokens per second.

python -m encort.benchmarks.studies.costs --rate 26318 --vcpus 2 --machine c7i.8xlarge=32:1.43

One machine runs one process per so many virtual CPUs as were measured, each with its own threads:
hours = texts * tokens / (rate * machine's vCPUs / measured vCPUs * efficiency * 3600), and cost = hours * price.
"""

import argparse

from encort.runtime.common.output.markdown import table


def hours(texts: float, tokens: float, rate: float, share: float, efficiency: float) -> float:
    """Return the hours of one machine.

    Args:
        texts: Texts of the corpus.
        tokens: Tokens per text.
        rate: Measured tokens per second.
        share: vCPUs of the machine per vCPU of the measurement.
        efficiency: Part of the rate that is left when all processes of the machine run.
    """
    return texts * tokens / (rate * share * efficiency * 3600)


def rows(arguments: argparse.Namespace) -> list[list[str]]:
    """Return one row per machine: name, vCPUs, price of an hour, hours and cost."""
    lines = []
    for machine in arguments.machine:
        name, _, rest = machine.partition("=")
        vcpus, _, price = rest.partition(":")
        share = float(vcpus) / arguments.vcpus
        needed = hours(arguments.texts, arguments.tokens, arguments.rate, share, arguments.efficiency)
        lines.append([name, vcpus, f"{float(price):.2f}", f"{needed:,.1f}", f"{needed * float(price):,.2f}"])
    return lines


def parse(values: list[str] | None = None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=float, default=1e8, help="texts of the corpus")
    parser.add_argument("--tokens", type=float, default=100, help="tokens per text")
    parser.add_argument("--rate", type=float, required=True, help="measured tokens per second")
    parser.add_argument("--vcpus", type=float, required=True, help="virtual CPUs of the measurement")
    parser.add_argument("--efficiency", type=float, default=0.8, help="part of the rate when the machine is full")
    parser.add_argument("--machine", action="append", required=True, help="NAME=VCPUS:PRICE, with the price of an hour")
    return parser.parse_args(values)


if __name__ == "__main__":
    header = ["machine", "vCPUs", "price of an hour", "hours of one machine", "cost"]
    print("\n".join(table(header, rows(parse()))))
