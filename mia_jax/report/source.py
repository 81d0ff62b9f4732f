"""Reads the report.json that pages and gates are made from; loads no drawing library."""

from __future__ import annotations

import pathlib
from typing import Any

from mia_jax.runtime import files
from mia_jax.runtime.store import report_json


def read(path: str | pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """Returns the path and the content of a report.json.

    Args:
        path: report.json, the folder of it or of saved Results, or the workdir of a finished run.

    Raises:
        FileNotFoundError: there is no report.
        ValueError: the file is damaged or is no report.
    """
    file = report_json(pathlib.Path(path).expanduser())
    remedy = "Name the report.json of a finished run."
    return file, files.read_json(file, needs=dict(results=list), remedy=remedy)
