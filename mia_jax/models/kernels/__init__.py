"""Contains fast forms of convolution and pooling, and taps for per-example gradients."""
