r"""Runs the label-only attacks of Choquette-Choo et al. (2021) with and without MemGuard.

Targets and source models (one of each by default) are trained on disjoint blocks of rows.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/label_only.py --workdir=runs/label_only
    python launch.py --config=configs/label_only.py:data=mnist10k.npz,side=28,ndata=1000 \
        --workdir=runs/label_only_mnist

Rows [0, n) train the target and rows [n, 2n) are its non-members; the next model has the next two
blocks, targets before source models (random blocks of an npz file). max_samples members and as many
non-members of a target are queried, and source_samples of a source model, on which thresholds and
attack models are calibrated.

Time on 2 CPU cores: Fashion-MNIST 12 min 37 s with almost no other load (24 CPU-minutes); MNIST
17.6 CPU-minutes, 42 min on a busy machine.

Expected balanced accuracy in percent, with 95% intervals over 500 members and 500 non-members; all
20 attacks, MemGuard, a smaller net and the defenses are in RESULTS.md:

                      Fashion-MNIST, n=2500     MNIST, n=1000
    gap               58.4 [56.8, 60.2]         51.9 [51.1, 52.9]
    boundary          63.3 [61.0, 65.5]         53.7 [52.5, 55.1]

Models that are trained with a defense: --grid with data=mnist10k.npz,side=28,ndata=1000,epochs=30,
attacks=bnd,max_samples=0,source_samples=0 (20 minutes of CPU time). last_layer is not in the grid:
defense=last_layer,weights=runs/label_only.

Arguments: those of the paper's code, and further ones.
    data: a folder of MNIST files; an npz with x and y (side=28 arranges its rows as images);
        or cifar10 or cifar100, prepared by TensorFlow Datasets.
    ndata: n, the rows of a block.
    targets, sources: the numbers of targets and of source models.
    model, depth, batch_size, epochs: the net (conv or fc) and its training.
    attacks: their letters.
        b gap; n confidence; d translation by d pixels; r rotation by r degrees
        g noise of standard deviation sigma, with noise_samples copies
        a boundary distance; u the same at a threshold from random inputs
        c distances at every translation; w Carlini-Wagner (white box)
        o outliers first; q one query; t transfer
    max_samples, source_samples: examples queried per side (0: all).
    iterations, evaluations: HopSkipJump's query budget; 10 and 100 are the paper's (2,500 queries).
    shift_iterations, shift_evaluations: the same for c.
    defense, reg_constant: '' is none.
        l1, l2, dropout: reg_constant is the strength.
        dp: reg_constant is the budget (epsilon) and `noise` the noise multiplier.
        advreg: reg_constant is the weight of its attacker; a model uses three blocks of rows.
        last_layer, full_fine_tune: start from `weights`, the workdir of another run.
"""

from mia_jax import checks, configuration, registry

# The columns of the grid's table.
TABLE = dict(
    attacks=("gap", "confidence", "confidence_of_label", "translation"),
    metrics=("balanced_accuracy",),
)
DEFENSES = ("l1", "l2", "dropout", "dp", "advreg", "last_layer", "full_fine_tune")


def get_config(arg=None):
    arg = configuration.arguments(
        arg,
        data="/usr/share/datasets/fashion-mnist",
        side=0,
        ndata=2500,
        targets=1,
        sources=1,
        model="conv",
        depth=1,
        defense="",
        reg_constant=1.0,
        noise=0.5,
        weights="",
        batch_size=100,
        epochs=1000,
        r=4.0,
        d=1,
        sigma=0.05,
        noise_samples=100,
        max_samples=500,
        source_samples=250,
        iterations=4,
        evaluations=40,
        shift_iterations=2,
        shift_evaluations=30,
        attacks="bndrgac",
    )
    from_npz = arg.data.endswith(".npz")
    # The attacker of adversarial regularization learns on a third block of each model.
    extra = arg.defense == "advreg"
    rows = (3 if extra else 2) * (arg.targets + arg.sources) * arg.ndata
    checks.one_of(("", *DEFENSES), defense=arg.defense)
    model, learner = defended(arg)
    return configuration.complete(
        data=images(arg, examples=rows),
        design=dict(
            name="blocks",
            size=arg.ndata,
            targets=arg.targets,
            sources=arg.sources,
            scored=arg.max_samples,
            scored_sources=arg.source_samples,
            drawn=from_npz,
            extra=extra,
        ),
        model=dict(name=arg.model, depth=arg.depth, **model),
        learner=learner,
        query=dict(batch_size=100, ask_batch_size=100),
        attacks=attacks(arg),
        run=dict(chunk=1),
    )


def images(arg, *, examples: int) -> dict:
    """Returns the fields of the data that `arg.data` names; an npz file is read whole."""
    if arg.data.endswith(".npz"):
        shape = (arg.side, arg.side, 1) if arg.side else ()
        return dict(name="npz", path=arg.data, shape=shape)
    if arg.data in ("cifar10", "cifar100"):
        return dict(name="tfds", dataset=arg.data, splits=("train",), examples=examples)
    return dict(name="idx", folder=arg.data, examples=examples)


def defended(arg) -> tuple[dict, dict]:
    """Returns the fields of the model and the learner under the defense that `arg` names."""
    stop = dict(monitor="loss", min_delta=0.005, patience=20)
    common = dict(
        optimizer=dict(name="adam", eps=1e-7), batch_size=arg.batch_size, epochs=arg.epochs
    )
    plain = dict(common, learning_rate=1e-3, stop=stop, validation="nonmembers")
    if arg.defense in ("l1", "l2"):
        return {}, plain | {arg.defense: arg.reg_constant}
    if arg.defense == "dropout":
        checks.fraction(closed="left", reg_constant=arg.reg_constant)
        return dict(dropout=arg.reg_constant), plain
    if arg.defense == "dp":  # reg_constant is the budget
        privacy = dict(
            clip_norm=2.0, noise_multiplier=arg.noise, epsilon=arg.reg_constant, delta=1 / arg.ndata
        )
        return {}, dict(common, learning_rate=1e-4, gradient="private", privacy=privacy)
    if arg.defense == "advreg":
        without_optimizer = {k: v for k, v in plain.items() if k != "optimizer"}
        return {}, dict(
            without_optimizer, name="adversarial_regularization", strength=arg.reg_constant
        )
    if arg.defense:
        if not arg.weights:
            raise ValueError(
                f"defense={arg.defense} starts from a trained model: weights= is the workdir of "
                "its run."
            )
        last = 1 if arg.model == "conv" else arg.depth
        return {}, plain | dict(
            init_from=arg.weights,
            trainable=rf"Dense_{last}/" if arg.defense == "last_layer" else "",
        )
    return {}, plain


def attacks(arg) -> dict:
    """Returns the attacks whose letters were typed, with and without MemGuard."""
    shift = registry.spelled("correct_under_shift", d=arg.d)
    rotation = registry.spelled("correct_under_rotation", r=arg.r)
    noise = registry.spelled("noise_robustness", samples=arg.noise_samples, sigma=arg.sigma)
    distance = registry.spelled(
        "boundary_distance", iterations=arg.iterations, evaluations=arg.evaluations
    )
    noise_distance = registry.spelled(
        "noise_distance", iterations=arg.iterations, evaluations=arg.evaluations
    )
    shift_budget = dict(d=arg.d, iterations=arg.shift_iterations, evaluations=arg.shift_evaluations)
    combined = registry.spelled("boundary_distance_under_shift", **shift_budget)
    learned = dict(name="attack_model", kind="logistic")
    networks = dict(name="attack_model", kind="mlp", per_class=True, scale=False)
    letters = dict(
        b=dict(gap=dict()),
        n=dict(
            confidence=dict(name="threshold", signal="max_confidence"),
            confidence_of_label=dict(name="threshold", signal="confidence"),
        ),
        d=dict(
            translation=dict(name="lookup", signal=shift),
            translation_logistic=dict(learned, features=(shift,)),
            translation_networks=dict(networks, features=(shift,), options=dict(network="d")),
        ),
        r=dict(
            rotation=dict(name="lookup", signal=rotation),
            rotation_networks=dict(networks, features=(rotation,), options=dict(network="r")),
        ),
        g=dict(noise=dict(name="threshold", signal=noise)),
        a=dict(boundary=dict(name="threshold", signal=distance)),
        u=dict(
            boundary_unsupervised=dict(
                name="unsupervised", signal=distance, reference=noise_distance
            )
        ),
        w=dict(carlini_wagner=dict(name="threshold", signal="carlini_wagner_distance")),
        c=dict(combined=dict(learned, kind="chosen", features=(combined,))),
        o=dict(outlier=dict()),
        q=dict(one_query=dict(name="threshold", signal=registry.spelled("one_query", shadows=1))),
        t=dict(transfer=dict(name="threshold", signal=registry.spelled("transfer", shadows=1))),
    )
    for letter in arg.attacks:
        checks.one_of(letters, attacks=letter)
    plain = {name: attack for letter in arg.attacks for name, attack in letters[letter].items()}
    # Networks are slow to learn twice. Carlini-Wagner looks inside the model, so that a mask of the
    # outputs does not change it.
    undefended = ("_networks", "carlini_wagner")
    shown = {name: attack for name, attack in plain.items() if not name.endswith(undefended)}
    behind = {
        f"{name}_memguard": dict(name=name) | attack | dict(defense="memguard")
        for name, attack in shown.items()
    }
    return plain | behind


def grid(arg=None):
    """Returns a variant without a defense and one per defense that trains a net from scratch.

    Fine-tuning (last_layer, full_fine_tune) needs the workdir of another run and is run by hand.
    """
    del arg
    private = {
        "defense": "dp",
        "noise": 1.0,
        "reg_constant": 10.0,
        "learner.learning_rate": 1e-3,  # 1e-4 would need ten times the epochs.
    }
    strengths = dict(l1=1e-3, l2=0.1, dropout=0.5, advreg=3.0)
    return [
        ("none", {}),
        *((name, dict(defense=name, reg_constant=value)) for name, value in strengths.items()),
        ("dp", private),
    ]
