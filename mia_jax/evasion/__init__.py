"""Searches for the nearest other side of a model's decision boundary; pure, batched over examples,
one key an example, queries counted.
"""
