"""Writes the report of workdirs again, from their report.json; no data is read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mia_jax import report


def rewrite(arguments: Sequence[str] | None, program: str) -> None:
    """Rewrites the report of every folder that was typed and prints its path.

    Raises:
        ValueError, FileNotFoundError: if a folder has no report.json, or a damaged one.
    """
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("folder", nargs="+", help="a workdir, or the folder of its report")
    for folder in parser.parse_args(arguments).folder:
        print(report.rewrite(folder))


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code of `python -m mia_jax.report`."""
    try:
        rewrite(arguments, "python -m mia_jax.report")
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
