"""Runs all attacks that your own model outputs allow; nothing is trained.

The outputs and the memberships are read from an npz file, or from a folder in the layout of LiRA's
released code.

    python launch.py --config=configs/scores.py --config.scores=mine.npz --workdir=runs/mine

Time: seconds. The attacks and their numbers depend on the file.

Keys and shapes of the npz file (a view axis A may precede N):

    the target       one or more of score [N] (higher means member), loss [N], probs [N,C],
                     logits [N,C], predictions [N]; member [N]
    labels           labels [N]
    shadow models    optionally shadow_score, shadow_loss, shadow_probs or shadow_logits, with a
                     model axis M in front; shadow_member [M,N]; pair [M]
    more             optionally x [N,..]; column_<name> [N]; population_<key> for rows that no model
                     was trained on

Without the target's arrays, every shadow model is the target in turn. Logits [N] of two classes
hold one logit z, which is read as (0, z). Numbers keep their precision up to float64.

Arguments: path (the same as --config.scores).
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(arg, path="scores.npz")
    return configuration.scores(path=arg.path)
