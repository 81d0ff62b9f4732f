"""Sections of report.md, one per file: NEEDS, text(...) and optionally figure(...); see mia_jax/report/page.py."""
