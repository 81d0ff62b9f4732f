"""mia_jax audits how much a trained model reveals about its training data.

Axis letters, as suffixes of every array of rank >= 2 (and of rank 1 where it helps): M models, T
targets, N pool examples, K rows of one model, S steps, B batch, A query views, C classes, H W
image, F features or channels, G slices (groups), R bootstrap draws, V vertices of a ROC curve, P
patch features.
"""

__version__ = "0.2.0"


PLACES = {  # public name -> its module
    "audit": "mia_jax.api",
    "LabelInference": "mia_jax.external.label_inference",
    "Monitor": "mia_jax.monitor",
    "Results": "mia_jax.results",
}


def __getattr__(name: str):
    """Imports the public names on first use, so that `import mia_jax` is fast."""
    if name in PLACES:
        import importlib

        return getattr(importlib.import_module(PLACES[name]), name)
    raise AttributeError(f"module 'mia_jax' has no attribute {name!r}")
