"""Trains M models as one program, checkpoints them, and queries the finished models."""
