"""Trains with differential privacy and audits the claims of private training.

Sampling plan, noise and accounting event all derive from one object, the mechanism.
"""
