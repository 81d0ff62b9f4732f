"""What attacks fit: moments over models, and small models on features; none of them knows what a
target or a shadow is.

The classifiers (kind `classifiers` of the registry) are files with make(...) -> Classifier and,
where an undecided one scores other than 0, NEUTRAL.
"""
