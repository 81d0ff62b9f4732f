"""Signals: what a model is asked about an example. One file each with make(...) -> Signal."""
