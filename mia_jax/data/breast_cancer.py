"""Scikit-learn's breast cancer data: 569 patients, 30 positive features of very different scales, 2
classes, no download.
"""

from __future__ import annotations

from mia_jax.data._pool import checked
from mia_jax.types import Pool, classification


def load() -> Pool:
    """x is [569,30] in the units of the data (0 to 4,254; standardize it on population rows), y 0 =
    malignant, 1 = benign.
    """
    from sklearn import datasets

    x, y = datasets.load_breast_cancer(return_X_y=True)
    return checked(Pool(x=x, y=y, name="breast_cancer", task=classification(2)))
