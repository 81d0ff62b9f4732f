"""Reports: result rows, tables, figures and the sections of report.md.

A report is a pure function of report.json: `rewrite` writes it again without data, and `read` gives
its numbers to a script.
"""

from __future__ import annotations

import pathlib
from typing import Any


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """Returns the content of a report.json, whatever version wrote it; its rows as a list.

    Args:
        path: report.json, the folder of it or of saved Results, or the workdir of a finished run.

    Raises:
        FileNotFoundError: there is no report.
        ValueError: the file is damaged, is no report, or is one of a newer version.
    """
    from mia_jax.report import source

    return source.read(path)[1]


def rewrite(folder: str | pathlib.Path) -> pathlib.Path:
    """Writes report.md, the tables and the figures of sections again, from the report.json in a
    workdir or report folder.
    """
    from mia_jax.report import files  # matplotlib is loaded by those who write a report

    return files.rewrite(folder)
