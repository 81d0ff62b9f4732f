"""Contains the learning rules, one file each with make(...) -> Learner.

Their parts are plan.py (the rows of each step), stopping.py (early stopping), _descent.py
(optimizer and schedule), _parameters.py (which parameters are trained) and _private.py (private
training).
"""
