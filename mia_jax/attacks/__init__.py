"""Attacks: a file each, with make(...) -> Attack. HIGHER SCORE = MORE LIKELY A MEMBER.

What helps to write one is in attacks/toolkit.py.
"""
