"""Searches for the nearest point on the other side of a model's decision boundary.

The searches are pure functions, batched over examples, with one key per example. They count
queries.
"""
