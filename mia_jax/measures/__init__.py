"""Numbers of a report that are read from a workdir or computed from a fleet; metrics/ has those of
arrays.
"""
