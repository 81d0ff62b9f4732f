"""Accuracy under FGSM and PGD of a plain and of an adversarially trained network, and what both tell about their training sets.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/evasion.py --grid --workdir=runs/evasion                  # both, and a table of their membership leak
    python launch.py --config=configs/evasion.py:robust --workdir=runs/robust                  # one of them

One target and one source of n = 1,000 Fashion-MNIST images each (design blocks), the small CNN, 40 epochs of Adam. The robust model is trained at
the worst point that one step finds within epsilon 0.1 of each image. Radii: 0, 1/255, 2/255, 4/255, 8/255, 16/255, .1, .3 (largest change of a
pixel); report.md has the accuracies, the radius at which 33.2% is left, figures/evasion.png and figures/adversarial.png.

With n = 1,000: not measured yet. ndata=500, both members, 10 minutes on 2 busy CPU cores; accuracy on non-members at the radii in their order:
    plain    FGSM 76.8 74.8 72.2 67.4 61.4 49.4 35.0  3.6, 33.2 at epsilon .111; PGD 76.8 74.6 71.8 67.2 59.8 46.4 22.0 0.0, 33.2 at .083
    robust   FGSM 74.4 74.2 73.0 71.0 68.8 63.6 57.8 19.6, 33.2 at epsilon .229; PGD 74.4 74.0 73.0 70.8 68.4 61.6 51.4 0.4, 33.2 at .171
Loss AUC .535 [.499, .570] plain, .515 [.481, .549] robust; train accuracy .852 and .770: 40 epochs of 500 images fit the robust model less, and
it does not leak more here. That robust models leak more (Song et al. 2019, arXiv:1905.10291) is about networks trained until both fit.

Arguments: folder, ndata, epochs, robust, epsilon, steps.
"""

from mia_jax import configuration

TABLE = dict(attacks=("gap", "threshold_loss", "threshold_confidence", "curve"), metrics=("auc", "balanced_accuracy"))


def get_config(arg=None):
    arg = configuration.arguments(arg, folder="/usr/share/datasets/fashion-mnist", ndata=1000, epochs=250, robust=False, epsilon=0.1, steps=1)
    objective = dict(name="adversarial", epsilon=arg.epsilon, steps=arg.steps) if arg.robust else "cross_entropy"
    return configuration.complete(
        data=dict(name="idx", folder=arg.folder, examples=4 * arg.ndata),
        design=dict(name="blocks", size=arg.ndata),
        model=dict(name="small_cnn", num_conv=1),
        learner=dict(objective=objective, optimizer="adam", learning_rate=2e-3, schedule="cosine", batch_size=50, epochs=arg.epochs),
        query=dict(batch_size=100, signals=("correct_under_fgsm", "correct_under_pgd", "fgsm_image")),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            threshold_confidence=dict(name="threshold", signal="confidence"),
            curve=dict(name="attack_model", kind="logistic", features=("correct_under_fgsm", "correct_under_pgd")),
        ),
        run=dict(chunk=1),
    )


def grid(arg=None):
    """The same network trained plainly and adversarially."""
    del arg
    return [("plain", dict(robust=False)), ("robust", dict(robust=True))]
