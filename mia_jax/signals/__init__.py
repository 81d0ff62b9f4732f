"""Holds the signals: what a model is asked about an example. One file each: make(...) -> Signal.

`Signal`, `Probe` and `ACCESS` in mia_jax/types.py define what a signal may ask and what it
receives: labels, output vectors or the model itself.
"""
