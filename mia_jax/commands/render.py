"""Writes report.html and report.md of a report again, without data, models or jax.

mia-jax render runs/quickstart
mia-jax render report.json -o pages --open

Everything that the pages show is in report.json, so a changed template, a newer version or a copy
of the file alone is enough.
"""

from __future__ import annotations

import argparse
import pathlib
import webbrowser
from collections.abc import Sequence

from mia_jax.report import files


def main(arguments: Sequence[str]) -> int:
    """Writes the pages of every report and prints their paths; returns 0.

    Raises:
        FileNotFoundError: there is no report.
        ValueError: a damaged report.json, or a folder that holds another report.
    """
    asked = parser().parse_args(list(arguments))
    path = files.render(asked.report, asked.output)
    print(path)
    if asked.open:
        webbrowser.open(path.resolve().as_uri())
    return 0


def parser() -> argparse.ArgumentParser:
    """Returns the reader of the command line."""
    reads = argparse.ArgumentParser(
        prog="mia-jax render",
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
        "-o",
        "--output",
        metavar="FOLDER",
        type=pathlib.Path,
        help="writes the pages there (default: next to report.json)",
    )
    reads.add_argument("--open", action="store_true", help="opens report.html in the browser")
    return reads
