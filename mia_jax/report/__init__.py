"""Reports: result rows, tables, figures and the sections of report.md.

A report is a pure function of report.json: `rewrite` writes it again without data.
"""

from __future__ import annotations

import pathlib


def rewrite(folder: str | pathlib.Path) -> pathlib.Path:
    """Writes report.md, the tables and the figures of sections again, from the report.json in a
    workdir or report folder.
    """
    from mia_jax.report import files  # matplotlib is loaded by those who write a report

    return files.rewrite(folder)
