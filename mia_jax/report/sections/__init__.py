"""Sections of report.md, one per file; mia_jax/report/page.py says what a section has."""
