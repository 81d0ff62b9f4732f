"""What the user supplies: arrays, a trained target, a black box of labels."""
