"""A deployed model for the tests: the label of the nearest of the rows that it keeps, which is a
perfect memory of its members.
"""

import numpy as np

KEPT = {"x": np.zeros((0, 1)), "y": np.zeros(0, int)}
STATE = dict(asked=0, fail_at=None, wrong_at=None)


def answer(x):
    STATE["asked"] += len(x)
    if STATE["fail_at"] is not None and STATE["asked"] > STATE["fail_at"]:
        raise ConnectionError("the service is away")
    flat = x.reshape(len(x), -1)
    distance = (flat**2).sum(1)[:, None] - 2 * flat @ KEPT["x"].T + (KEPT["x"] ** 2).sum(1)[None]
    label = KEPT["y"][distance.argmin(1)]
    if STATE["wrong_at"] is not None and STATE["asked"] > STATE["wrong_at"]:
        label = label + 10
    return label
