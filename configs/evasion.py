"""Compares a plain and an adversarially trained network: accuracy under FGSM and PGD, and leakage.

    apt-get install dataset-fashion-mnist

    # Both networks, and a table of their membership leakage.
    python launch.py --config=configs/evasion.py --grid --workdir=runs/evasion
    # Only the adversarially trained one.
    python launch.py --config=configs/evasion.py:robust --workdir=runs/robust

One target and one source model with n = 1,000 Fashion-MNIST images each (design blocks): a CNN with
one convolution, trained by Adam for 250 epochs with a cosine schedule, so that both models fit
their training sets.
The robust model is trained at the worst point that one step finds within epsilon 0.1 of each image.
Radii: 0, 1/255, 2/255, 4/255, 8/255, 16/255, 0.1, 0.3 (largest change of a pixel); report.md has
the accuracies, the radius at which 33.2% is left, figures/evasion.png and figures/adversarial.png
(of images in another folder: with --config.report.show_records=contents).
The attack `curve` learns on the source model how the answers at all radii predict membership
(white box).

Both variants, 4 minutes of CPU time (10 min on a busy machine); accuracy on non-members in
percent at the radii in their order, and the radius at which 33.2% is left:

    plain   FGSM  82.2 79.1 75.3 69.2 54.5 32.1 13.5  0.0   0.061
            PGD   82.2 78.9 75.2 67.5 50.7 24.2  6.3  0.0   0.052
    robust  FGSM  83.3 81.6 80.3 78.1 73.7 65.4 56.5 17.3   0.219
            PGD   83.3 81.4 79.4 76.9 67.9 54.0 32.1  0.0   0.098

                                      plain                 robust
    train accuracy                    1.000                 0.996
    AUC of threshold_loss             0.607 [0.580, 0.632]  0.615 [0.590, 0.639]
    AUC of gap                        0.589 [0.577, 0.601]  0.582 [0.569, 0.594]
    AUC of curve                      0.606 [0.581, 0.631]  0.744 [0.721, 0.765]
    balanced accuracy of curve, in %  65.1 [63.6, 66.7]     69.3 [67.6, 71.0]

The robust model's answers to the images themselves reveal no more than the plain one's; its answers
to adversarial images do: it was trained to keep its members' labels there (95.3% of the members and
56.5% of the non-members keep their label under FGSM at 0.1). At the loss threshold calibrated on
the source, the balanced accuracy is 58.4 [57.2, 59.7] against 67.1 [65.6, 68.6]: its source was
fitted less well, so that this threshold does not transfer. Robust models leak more: Song et al.
2019 (arXiv:1905.10291).

Arguments: folder, ndata, epochs, robust, epsilon, steps.
"""

from mia_jax import configuration

TABLE = dict(
    attacks=("gap", "threshold_loss", "threshold_confidence", "curve"),
    metrics=("auc", "balanced_accuracy"),
)
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def get_config(arg=None):
    arg = configuration.arguments(
        arg,
        folder=FASHION_MNIST,
        ndata=1000,
        epochs=250,
        robust=False,
        epsilon=0.1,
        steps=1,
    )
    objective = (
        dict(name="adversarial", epsilon=arg.epsilon, steps=arg.steps)
        if arg.robust
        else "cross_entropy"
    )
    return configuration.complete(
        data=dict(name="idx", folder=arg.folder, examples=4 * arg.ndata),
        design=dict(name="blocks", size=arg.ndata),
        model=dict(name="small_cnn", num_conv=1),
        learner=dict(
            objective=objective,
            optimizer="adam",
            learning_rate=2e-3,
            schedule="cosine_decay_schedule",
            batch_size=50,
            epochs=arg.epochs,
        ),
        query=dict(
            batch_size=100, signals=("correct_under_fgsm", "correct_under_pgd", "fgsm_image")
        ),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            threshold_confidence=dict(name="threshold", signal="confidence"),
            curve=dict(
                name="attack_model",
                kind="logistic",
                features=("correct_under_fgsm", "correct_under_pgd"),
            ),
        ),
        # Fashion-MNIST is public; images of another folder are only shown on request
        report=dict(show_records="contents" if arg.folder == FASHION_MNIST else "auto"),
        run=dict(chunk=1),
    )


def grid(arg=None):
    """Returns two variants: the same network trained plainly and adversarially."""
    del arg
    return [("plain", dict(robust=False)), ("robust", dict(robust=True))]
