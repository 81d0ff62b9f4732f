"""Data sources: one file each with load(**kwargs) -> Pool. augment.py has the query views and the training augmentation."""
