"""Slices of the evaluated records: one term per file with make(...) -> slice(records), which gives
one Layer or several (mia_jax/metrics/slices.py).

config.report.slices = ('class', 'column:age:4', 'my_pkg.my_slices:bins=3'). A file's NEEDS names
what it reads of the targets beside groups and columns: any of 'labels', 'loss', 'correct'.
"""
