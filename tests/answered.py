"""Answers of a target and of shadows as a user would pass them."""

import numpy as np

QUICK = dict(draws=40)


def arrays(models=8, examples=120, classes=4, mu=3.0, seed=0, pairs=True):
    """Logits of a target and of shadows that are surer of their members; complementary pairs or
    independent coins.
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, examples)
    member = rng.random((models + 1, examples)) < 0.5
    if pairs:
        member[2::2] = ~member[1::2]
    logits = rng.normal(size=(models + 1, examples, classes))
    logits += (mu * member + rng.normal(size=examples))[..., None] * np.eye(classes)[y]
    return dict(
        logits=logits[0],
        member=member[0],
        labels=y,
        shadow_logits=logits[1:],
        shadow_member=member[1:],
    )
