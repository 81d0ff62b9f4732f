"""Numbers of a report that are read from a workdir or computed from a fleet.

Numbers that are computed from arrays are in metrics/.
"""
