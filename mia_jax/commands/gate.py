"""Compares a report with limits: exits with 0 (within), 1 (above) or 2 (undecided).

mia-jax gate runs/quickstart --limit "tpr@0.01 <= 0.05" --limit "auc <= 0.6"
mia-jax gate runs/quickstart --limit "auc <= 0.6" --attack lira --slice "class=3"
mia-jax gate runs/quickstart --limit "tpr@1% <= 5%" --format junit -o gate.xml

A number is within a limit if the upper end of its interval is, and above it if the lower end is.
Otherwise, or where a failed check withholds the verdict, the study cannot tell: the answer says
about how many models or rows would decide. Nothing is computed again, so it takes a second.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

from mia_jax.measures.gate import FORMS
from mia_jax.report import gate, source
from mia_jax.runtime import files

FORMATS = {"text": gate.Gate.text, "json": gate.Gate.to_json, "junit": gate.Gate.junit}


def main(arguments: Sequence[str]) -> int:
    """Prints what the limits say about a report; returns 0, 1 or 2.

    Raises:
        FileNotFoundError: there is no report.
        ValueError: a limit, an attack or a slice that the report does not have, or a damaged file.
    """
    asked = parser().parse_args(list(arguments))
    _, report = source.read(asked.report)
    answer = gate.of(report, asked.limit, attack=asked.attack, slice=asked.slice or "all")
    text = FORMATS[asked.format](answer)
    if asked.output is not None:
        files.write_text(asked.output.expanduser(), text + "\n")
        text = answer.text()
    print(text)
    return answer.exit_code


def parser() -> argparse.ArgumentParser:
    """Returns the reader of the command line."""
    reads = argparse.ArgumentParser(
        prog="mia-jax gate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reads.add_argument(
        "report",
        metavar="REPORT",
        type=pathlib.Path,
        help="a workdir, a report.json, or the folder of saved Results",
    )
    reads.add_argument(
        "--limit",
        action="append",
        required=True,
        metavar="'METRIC <= NUMBER'",
        # a percent sign is argparse's own
        help=f"may be given several times; {FORMS}".replace("%", "%%"),
    )
    reads.add_argument(
        "--attack",
        action="append",
        help="gates this attack; may be given several times (default: all that a real attacker "
        "could run)",
    )
    reads.add_argument(
        "--slice",
        action="append",
        help="gates the records of this slice, such as 'class=3'; may be given several times "
        "(default: all records)",
    )
    reads.add_argument("--format", choices=sorted(FORMATS), default="text")
    reads.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=pathlib.Path,
        help="writes the format there (an older file is replaced) and the text to the terminal",
    )
    return reads
