"""What attacks fit: moments over models, and small models on features; none of them knows what a target or a shadow is."""
