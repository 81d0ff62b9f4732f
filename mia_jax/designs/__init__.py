"""Designs: who trains on what. One file each with make(...) -> Design."""
