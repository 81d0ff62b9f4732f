"""python -m mia_jax.report FOLDER ...: writes the report of a workdir again, from its report.json; no data is read."""

from __future__ import annotations

import sys

from mia_jax import report


def main(folders: list[str]) -> int:
    """Rewrites the report of every folder and prints its path."""
    if not folders or any(folder.startswith("-") for folder in folders):
        print(__doc__, file=sys.stdout if set(folders) & {"-h", "--help"} else sys.stderr)
        return 0 if set(folders) & {"-h", "--help"} else 2
    try:
        for folder in folders:
            print(report.rewrite(folder))
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
