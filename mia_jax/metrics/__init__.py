"""ROC curves, rates and their intervals in NumPy float64 on the host. Imports no jax."""
