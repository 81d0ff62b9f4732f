"""Arrays of your own: an npz file of answers and memberships, or a folder in the layout of LiRA's
released code. Nothing is trained.

    python launch.py --config=configs/scores.py --config.scores=mine.npz --workdir=runs/mine

Keys and shapes (a view axis A before N may be left out): one of score [N] (higher = member), loss
[N], probs [N,C], logits [N,C], predictions [N]; labels [N]; member [N]; optionally shadow_score |
shadow_loss | shadow_probs | shadow_logits with a model axis M in front, shadow_member [M,N], pair
[M], x [N,..], column_<name> [N], and population_<key> for rows that no model saw. Without target
arrays every shadow model is a target in turn. One logit z of two classes, logits [N], is taken as
(0, z). Numbers keep their precision up to float64. All attacks that the arrays allow are run.
Arguments: path (the same as --config.scores).
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(arg, path="scores.npz")
    return configuration.scores(path=arg.path)
