"""Heads: small models that an attack fits on features; none of them knows what a target or a shadow is."""
