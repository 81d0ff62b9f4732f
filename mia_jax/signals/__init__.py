"""Holds the signals: what a model is asked about an example. One file each: make(...) -> Signal.

What a signal may ask, and what it is told, is `Signal`, `Probe` and `ACCESS` in mia_jax/types.py.
"""
