r"""Runs the label-only attacks of Choquette-Choo et al. (2021) with and without MemGuard.

One target and one source model are trained on disjoint blocks of rows.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/label_only.py --workdir=runs/label_only
    python launch.py --config=configs/label_only.py:data=mnist10k.npz,side=28,ndata=1000 \
        --workdir=runs/label_only_mnist

Rows [0, n) train the target and rows [n, 2n) are its non-members; the source model has the next two
blocks (random blocks of an npz file). max_samples members and as many non-members of the target are
queried, and source_samples of the source model, on which thresholds and attack models are
calibrated.

Time on 2 CPU cores: Fashion-MNIST 12 min 37 s with almost no other load (24 CPU-minutes); MNIST
17.6 CPU-minutes, 42 min under other load.

Expected balanced accuracy in percent, with 95% intervals over 500 members and 500 non-members, and
queries per example. The last column is the balanced accuracy if MemGuard defends the target (it
changes the target's outputs, not those of the attacker's source model):

                      Fashion-MNIST, n=2500     MNIST, n=1000          queries        MemGuard
    gap               58.4 [56.8, 60.2]         51.9 [51.1, 52.9]            1        the same
    max confidence    63.8 [61.7, 65.9]         55.6 [53.8, 57.5]                     50.0
    p of the label    65.3 [63.2, 67.4]         55.7 [53.9, 57.6]                     50.0
    translation d=1   59.2 [57.3, 61.2]         48.9 [47.2, 50.6]            5        the same
      logistic        59.4 [57.3, 61.6]         53.2 [51.8, 54.7]            5        the same
      networks        55.5 [52.4, 58.6]         50.7 [47.5, 53.9]            5
    rotation r=4      60.0 [57.8, 62.2]         52.9 [51.9, 54.1]            3        the same
      networks        55.8 [52.7, 58.9]         51.6 [48.4, 54.8]            3
    noise             63.8 [61.7, 65.9]         52.5 [51.6, 53.6]           93; 99    the same
    boundary          63.3 [61.0, 65.5]         53.7 [52.5, 55.1]          299; 320   the same
    combined          59.6 [56.6, 62.5]         53.2 [50.0, 56.3]          534; 585   the same

Paired difference of boundary and gap: +4.9 [3.3, 6.7] and +1.8 [1.0, 2.9] percentage points.

  * combined learns on 250 + 250 rows of the source model. Its classifier is chosen among five by
    cross-validation on those rows, and it is not better than boundary.
  * The lookup of MNIST's translations fails: all five answers are correct for 215 of 250
    non-members and for 213 of 250 members of the source model's sample, so it predicts nearly all
    examples as non-members.
  * Both targets memorize all members (train accuracy 1.0; on non-members 0.832 and 0.962).
  * The same MNIST run with convolutions that round differently: gap 52.8, boundary 54.8 [53.3,
    56.4], difference +2.0 [0.5, 3.1].
  * At the paper's budget (iterations=10,evaluations=100: 2,363 queries), a net of an earlier run
    gave boundary 55.2 [53.8, 56.8], difference +2.8 [1.8, 3.8].
  * A smoke run: ndata=200,epochs=30,max_samples=50,source_samples=25.

A smaller net on MNIST (model=fc,attacks=bnawoqtu,ndata=1000; one minute of CPU time):

                                               balanced accuracy    AUC
    gap                                        55.2 [53.9, 56.7]    0.552
    max confidence                             61.7 [59.3, 64.1]
    boundary (310 queries)                     60.2 [58.1, 62.3]    0.583 [0.548, 0.617]
      at the median distance of random inputs  60.1 [58.2, 62.1]
    Carlini-Wagner (white box)                 61.6 [59.2, 64.0]
    one query                                                       0.633 [0.605, 0.660]
    transfer (5 queries)                                            0.661 [0.632, 0.689]
    outliers first                                                  0.549 [0.534, 0.563]

Carlini-Wagner's distance is never larger than HopSkipJump's (medians 0.73 and 2.00).

Models that are trained with a defense: --grid with data=mnist10k.npz,side=28,ndata=1000,epochs=30,
attacks=bnd,max_samples=0,source_samples=0 (1,000 members and 1,000 non-members; 20 minutes of CPU
time). Balanced accuracy of the attacks, and the target's accuracy on members and on others:

                 member other gap              max confidence    p of the label    translation
    none         1.000 0.960 52.0 [51.4, 52.7] 54.2 [52.7, 55.7] 54.2 [52.7, 55.7] 53.2 [52.3, 54.3]
    l1, 0.001    0.993 0.942 52.5 [51.8, 53.4] 50.6 [48.8, 52.5] 53.4 [52.0, 54.8] 52.3 [51.2, 53.5]
    l2, 0.1      0.991 0.948 52.2 [51.4, 53.0] 53.2 [52.1, 54.4] 52.9 [52.0, 53.9] 52.6 [51.4, 53.8]
    dropout, 0.5 1.000 0.968 51.6 [51.1, 52.2] 54.3 [52.8, 55.8] 54.4 [52.9, 55.9] 52.2 [51.1, 53.4]
    advreg, 3    0.999 0.959 52.0 [51.4, 52.7] 52.2 [50.3, 54.2] 52.8 [51.1, 54.5] 52.3 [51.1, 53.6]
    dp           0.843 0.828 50.8 [49.1, 52.4] 50.7 [48.5, 52.9] 50.4 [48.2, 52.6] 50.2 [48.4, 52.1]
    last_layer   0.869 0.830 52.0 [50.3, 53.6] 50.8 [48.6, 53.0] 52.4 [50.9, 53.9] 52.0 [50.0, 54.1]

dp has the noise multiplier 1 and epsilon 9.05. last_layer (not in the grid) starts from the
Fashion-MNIST net: defense=last_layer,weights=runs/label_only. full_fine_tune was not measured.

Arguments: those of the paper's code, and further ones.
    data: a folder of MNIST files, or an npz with x and y; side=28 arranges its rows as images.
    ndata: n, the rows of a block.
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
        advreg: reg_constant is the weight of its attacker; six blocks of rows are used.
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
    checks.one_of(("", *DEFENSES), defense=arg.defense)
    model, learner = defended(arg)
    return configuration.complete(
        data=dict(name="npz", path=arg.data, shape=(arg.side, arg.side, 1) if arg.side else ())
        if from_npz
        else dict(name="idx", folder=arg.data, examples=(6 if extra else 4) * arg.ndata),
        design=dict(
            name="blocks",
            size=arg.ndata,
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
