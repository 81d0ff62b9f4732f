"""Slices of the evaluated records: a kind per file, with make(...) -> slice(records).

It returns a Layer or several (mia_jax/metrics/slices.py). config.report.slices = ('class',
'column:age:4', 'my_pkg.my_slices:bins=3'). A file's NEEDS names what it reads of the targets in
addition to groups and columns: any of 'labels', 'loss', 'correct'.
"""
