"""Holds the data sets, one file each with load(...) -> Pool, ending in `checked(Pool(...))`.

`checked` of data/_pool.py refuses examples that cannot be used; tokens.py is a short example.
"""
