"""Holds the sections of report.md, one per file: which numbers a section shows, and its figure.

The text of section NAME is report/templates/NAME.md.j2. report/page.py says what a section has and
how a new one, with a figure, is added.
"""
