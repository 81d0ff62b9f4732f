"""Corrects bounds on epsilon for coins that are fair only up to a known shift.

An audit may let the attacker see more than the mechanism's outcome about which of two alternatives
a coin picked. The case at hand is label inference: rows (x, y) are trained on, a proxy model gives
a second label y' to the same x, and a coin decides in which order the attacker is shown the two
(observational auditing of label privacy, arXiv:2511.14084). The order R = (first, second) is

    p(first) q(second)  if the first label is the one of the training data,
    q(first) p(second)  if it is the proxy's,

where p and q are the distributions of y and y' given x. So R is the outcome of a mechanism on the
fair coin: nothing is seen in it if the proxy draws from p, and it is (odds, slack)-DP if for all
sets of outcomes the two probabilities are within e^odds of each other, up to slack. The model was
trained on the label that R and the coin name, so R and the model's outcome compose adaptively: they
are (epsilon + odds, delta + slack)-DP functions of independent fair coins, to which every bound of
audit.py applies. What is refuted for the composition leaves epsilon = refuted - odds.

Under a Gaussian's trade-off curve the same holds for squares: a mechanism that is (odds, 0)-DP has
a trade-off curve of straight lines between (0, 1), its vertex and (1, 0), above the convex curve of
the Gaussian through the same vertex, whose mu is 2 Phi^-1(e^odds / (1 + e^odds)). So mu^2 of the
composition is at most the sum, and what is refuted leaves mu^2 = refuted^2 - mu(odds)^2.

If the shift is not known, guesses about rows on which the model was not trained show it
(`estimated`): there, only R can be right. Given R, a guess with prior probability pi of being right
is right with probability f(pi) = pi e^epsilon / (1 - pi + pi e^epsilon) at most, which is concave,
so that guesses with the mean prior m are right with mean probability f(m) at most; and a number of
independent right guesses above its mean is likeliest where all are equally likely (Hoeffding 1956).
So an upper limit of the mean accuracy of such guesses on other rows replaces the worst odds, if the
model does not steer the guesses to rows on which the proxy is further off. This bounds 'one_run'
alone, whose count assumes nothing about the other guesses.

This file uses NumPy and SciPy only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy import special

from mia_jax import checks
from mia_jax.metrics import intervals


class Shift(NamedTuple):
    """Says how far from fair the coins of an audit are, given what else the attacker sees.

    Attributes:
        odds: the largest log odds of the two alternatives.
        slack: the probability up to which the odds hold.
        estimated: whether `odds` is a limit of the mean over guesses only.
    """

    odds: float = 0.0
    slack: float = 0.0
    estimated: bool = False


FAIR = Shift()


def checked(shift: Shift) -> Shift:
    """Returns the shift; raises ValueError unless odds >= 0 and slack is in [0, 1)."""
    checks.at_least(0, shift=shift.odds)
    checks.fraction(closed="left", slack=shift.slack)
    return shift


def usable(shift: Shift, method: str, *, gaussian: bool) -> str:
    """Returns why a method has no bound under this shift ('' if it has one).

    Args:
        shift: the shift.
        method: the name of the method.
        gaussian: whether the method assumes a Gaussian's trade-off curve.
    """
    if shift.estimated and method != "one_run":
        return (
            "the shift of the labels was estimated on control rows, which bounds its mean over "
            "guesses: pass a known shift, or use 'one_run'"
        )
    if shift.slack and gaussian:
        return "a shift with slack > 0 has no Gaussian's trade-off curve: use 'one_run' or 'fdp'"
    return ""


def left_of_epsilon(refuted: float, shift: Shift) -> float:
    """Returns the epsilon that is refuted if it composes with the shift to `refuted`.

    >>> round(left_of_epsilon(2.0, Shift(odds=0.5)), 3), left_of_epsilon(0.2, Shift(odds=0.5))
    (1.5, 0.0)
    """
    return max(0.0, refuted - shift.odds)


def left_of_mu(refuted: float, shift: Shift) -> float:
    """Returns the mu that is refuted if it composes with the shift to `refuted`.

    >>> round(left_of_mu(1.0, Shift(odds=0.5)), 3), left_of_mu(0.2, Shift(odds=0.5))
    (0.782, 0.0)
    """
    own = 2 * float(special.ndtri(special.expit(shift.odds)))
    return math.sqrt(max(0.0, refuted**2 - own**2))


def estimated(*, guesses: int, correct: int, alpha: float) -> float:
    """Returns the log odds that correspond to the upper limit of the mean accuracy of guesses.

    Args:
        guesses: how many guesses were made about rows on which the model was not trained.
        correct: how many of them were right.
        alpha: the probability with which the true mean may be larger.

    >>> round(estimated(guesses=1000, correct=500, alpha=0.025), 3)
    0.126
    """
    checks.fraction(closed="neither", alpha=alpha)
    high = intervals.clopper_pearson(correct, guesses, 1 - 2 * alpha)[1]
    return max(0.0, float(special.logit(high)))
