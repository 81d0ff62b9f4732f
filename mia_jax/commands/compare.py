"""Compares audits side by side: numbers, differences, utility against leakage, settings.

mia-jax compare runs/a runs/b runs/c
mia-jax compare runs/a saved/b old/report.json -o compare.html
mia-jax compare runs/grid -o compare.md

Differences are from the first audit. They are paired where both audits are of the same records and
training sets and their scores are saved; otherwise it is said why they are not.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

from mia_jax.measures import comparison
from mia_jax.report import comparison as speaking
from mia_jax.report import source
from mia_jax.runtime import files

ENDINGS = (".html", ".md", ".json")


def main(arguments: Sequence[str]) -> int:
    """Prints the comparison, writes it where that is asked for, and returns 0.

    Raises:
        FileNotFoundError: a path has no report.
        ValueError: fewer than two reports, the same one twice, a damaged one, or an output that is
            neither HTML nor Markdown nor JSON.
    """
    asked = parser().parse_args(list(arguments))
    output = None if asked.output is None else asked.output.expanduser()
    if output is not None and output.suffix.lower() not in ENDINGS:
        raise ValueError(
            f"output={str(output)!r} must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, which "
            "chooses the form of the comparison."
        )
    runs, notes = source.runs(asked.reports)
    made = comparison.compare(runs)
    print(speaking.terminal(made, runs, notes=notes))
    if output is not None:
        files.write_text(output, written(made, runs, notes, output.suffix.lower()))
        print(f"comparison: {output}")
    return 0


def written(
    made: comparison.Comparison,
    runs: Sequence[comparison.Run],
    notes: Sequence[str],
    ending: str,
) -> str:
    """Returns the text of a file with one of ENDINGS."""
    if ending == ".json":
        return speaking.to_json(made) + "\n"
    write = speaking.page_html if ending == ".html" else speaking.markdown
    return write(made, runs, notes=notes)


def parser() -> argparse.ArgumentParser:
    """Returns the reader of the command line."""
    reads = argparse.ArgumentParser(
        prog="mia-jax compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reads.add_argument(
        "reports",
        metavar="REPORT",
        nargs="+",
        type=pathlib.Path,
        help="a workdir, a report.json, the folder of saved Results, or the folder of a grid, "
        "which stands for its runs",
    )
    reads.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=pathlib.Path,
        help="writes the comparison there: .html (one page that opens offline), .md or .json; an "
        "older file is replaced",
    )
    return reads
