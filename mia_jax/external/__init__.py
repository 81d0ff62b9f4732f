"""Takes in what the user supplies: arrays, a trained target, a black box that answers labels."""
