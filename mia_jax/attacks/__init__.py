"""Holds the attacks, one file each with make(...) -> Attack. HIGHER SCORE = MORE LIKELY A MEMBER.

The files are the list (`--list=attacks`); toolkit.py is none: it explains what attacks share.
"""
