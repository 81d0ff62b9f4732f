"""Writes the report of a workdir again, from its report.json; no data is read."""

from __future__ import annotations

from collections.abc import Sequence

from mia_jax.report import __main__ as report


def main(arguments: Sequence[str]) -> int:
    """Rewrites the report of every folder and prints its path; returns 0."""
    report.rewrite(arguments, "mia-jax report")
    return 0
