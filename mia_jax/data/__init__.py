"""Data sources: one file each with load(**kwargs) -> Pool."""
