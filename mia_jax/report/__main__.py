"""Writes the report of workdirs again, from their report.json; no data is read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mia_jax import report


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrites the report of every folder and prints its path."""
    parser = argparse.ArgumentParser(prog="python -m mia_jax.report", description=__doc__)
    parser.add_argument("folder", nargs="+", help="a workdir, or the folder of its report")
    try:
        for folder in parser.parse_args(arguments).folder:
            print(report.rewrite(folder))
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
