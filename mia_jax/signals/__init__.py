"""Signals: what a model is asked about an example. A file each, with make(...) -> Signal."""
