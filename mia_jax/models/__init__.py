"""Architectures, one file each with make(...) -> Model.

The only folder that imports flax; layers.py has the layers they share.
"""
