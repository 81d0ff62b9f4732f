"""Asking models: forward passes, questions of their own, snapshots, a black box."""
