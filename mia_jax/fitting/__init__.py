"""What attacks fit: moments over models, and small models on features.

None of them knows what a target or a shadow is. The classifiers (kind `classifiers` of the
registry) are files with make(...) -> Classifier and, where an undecided one does not score 0,
NEUTRAL.
"""
