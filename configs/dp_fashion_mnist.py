"""Fashion-MNIST with differential privacy and without it, on the same rows: accuracy, accounted epsilon, the best attack, the audited lower bound.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/dp_fashion_mnist.py --workdir=runs/dp
    python launch.py --config=configs/dp_fashion_mnist.py:private=false --workdir=runs/not_dp

4 small CNNs with tanh, each on 3,000 images and on those of 1,000 mislabeled canaries that its coins picked; 1,000 further images test it.
Measured with private=false (15 min 25 s of training on 2 CPU cores that were busy with other work, stopped at times; 4 targets): accuracy 81.0% on
images outside all models, 92.5% on members; AUC on the canaries .984 [.980, .987] for lira_shrunk and .957 [.948, .964] for threshold_loss;
audited lower bound of epsilon 2.86, all of 100 guesses right, which is the most that 100 guesses can show. With private=true (25 min 36 s of
training, likewise): epsilon 3.00 at delta 1e-5 (PLD, add/remove, Poisson; RDP 3.27), accuracy 74.4% on images outside all models, AUC on the
canaries .540 [.520, .559] for lira_shrunk and .501 [.485, .518] for threshold_loss, audited lower bound 0.

Arguments: folder (the four .gz files), private, epsilon, epochs, models, canaries; full: the shape of the published recipe (tanh nets, batches of
2,048 of 60,000 rows, 40 epochs, clip .1, SGD with momentum: Papernot et al. 2021, arXiv:2007.14191, printed 86% at epsilon 2.7), not run here.
"""

from mia_jax import configuration


def get_config(arg=None):
    folder = "/usr/share/datasets/fashion-mnist"
    arg = configuration.arguments(arg, folder=folder, private=True, epsilon=3.0, epochs=30, models=4, canaries=1000, full=False)
    learner = dict(optimizer="adam", learning_rate=2e-3, batch_size=128, epochs=arg.epochs)
    privacy = dict(clip_norm=0.5, noise_multiplier=None, epsilon=arg.epsilon, delta=1e-5)
    if arg.full:
        learner = dict(optimizer="sgd", learning_rate=4.0, momentum=0.9, batch_size=2048, epochs=40)
        privacy |= dict(clip_norm=0.1, physical_batch=0)
    if arg.private:
        learner |= dict(gradient="private", privacy=privacy)
    elif arg.full:
        learner |= dict(optimizer="adam", learning_rate=1e-3)
    return configuration.complete(
        data=dict(name="idx", folder=arg.folder, examples=70_000 if arg.full else 5_000, canaries=dict(kind="mislabeled", count=arg.canaries)),
        design=dict(name="canaries", models=arg.models, population=1 / 7 if arg.full else 0.2),
        model=dict(name="small_cnn", num_conv=2, activation="tanh"),
        learner=learner,
        query=dict(batch_size=250),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            threshold_rescaled_logit=dict(name="threshold", signal="rescaled_logit"),
            lira_shrunk=dict(name="lira", mode="online", variance="shrunk"),
        ),
        report=dict(audit=dict(attacks=("threshold_loss", "lira_shrunk"), guesses=(0.05,), delta=1e-5), records=()),
        run=dict(chunk=1),
    )
