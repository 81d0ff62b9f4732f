"""Differentially private training (one mechanism, from which plan, noise and accounting event are
derived) and audits of its claim.
"""
