"""Differentially private training: one mechanism, from which the plan, the noise and the accounting event are derived."""

