"""Learning rules, one file each with make(...) -> Learner.

plan.py (which rows when), stopping.py and _descent.py (optimizer and schedule) are their parts.
"""
