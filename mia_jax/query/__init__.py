"""Queries models: by forward passes, by longer queries, at snapshots, or as a black box."""
