"""What the user brings: arrays, a trained target, a black box of labels."""
