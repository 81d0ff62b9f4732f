"""Contains the data sources, one file each with load(**kwargs) -> Pool."""
