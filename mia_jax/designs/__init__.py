"""Contains the designs, one file each with make(...) -> Design.

A design says which model trains on which examples.
"""
