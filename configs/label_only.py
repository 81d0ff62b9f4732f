"""The label-only attacks of Choquette-Choo et al. 2021 on disjoint blocks: one target, one source model, each with and without MemGuard.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/label_only.py --workdir=runs/label_only
    python launch.py --config=configs/label_only.py:data=mnist10k.npz,side=28,ndata=1000 --workdir=runs/label_only_mnist

Rows [0, n) train the target and [n, 2n) are its non-members; the source has the next two blocks (random blocks of an npz file). max_samples members
and as many non-members of the target are asked about, source_samples of the source, where thresholds and attack models are chosen.

Not measured yet.

Arguments, as the original's flags: data (a folder of MNIST files, or an npz with x and y; side=28 arranges rows as images), ndata, model (conv, fc),
depth, defense ('', l1, l2, dropout with strength reg_constant), batch_size, epochs, attacks (letters: b gap, n confidence, d translation by d pixels,
r rotation by r degrees, g noise of sigma with noise_samples copies, a boundary distance, c distances at every translation), max_samples (0: all).
iterations and evaluations (shift_*: of c) set the query budget of HopSkipJump: iterations=10,evaluations=100 is the paper's 2,500.
"""

from mia_jax import checks, configuration, registry

DEFENSES = ("l1", "l2", "dropout")


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
    file = arg.data.endswith(".npz")
    checks.one_of(("", *DEFENSES), defense=arg.defense)
    penalty, rate = {}, {}
    if arg.defense in ("l1", "l2"):
        penalty = {arg.defense: arg.reg_constant}
    elif arg.defense == "dropout":
        checks.fraction(closed="left", reg_constant=arg.reg_constant)
        rate = dict(dropout=arg.reg_constant)
    return configuration.complete(
        data=dict(name="npz", path=arg.data, shape=(arg.side, arg.side, 1) if arg.side else ())
        if file
        else dict(name="idx", folder=arg.data, examples=4 * arg.ndata),
        design=dict(name="blocks", size=arg.ndata, scored=arg.max_samples, scored_sources=arg.source_samples, drawn=file),
        model=dict(name=arg.model, depth=arg.depth, **rate),
        learner=dict(
            optimizer="adam",
            learning_rate=1e-3,
            epsilon=1e-7,
            batch_size=arg.batch_size,
            epochs=arg.epochs,
            stop=dict(monitor="loss", min_delta=0.005, patience=20),
            validation="nonmembers",
            **penalty,
        ),
        query=dict(batch_size=100, ask_batch_size=100),
        attacks=attacks(arg),
        run=dict(chunk=1),
    )


def attacks(arg) -> dict:
    """The attacks of each letter, as the original's pipeline names them."""
    shift = registry.spelled("correct_under_shift", d=arg.d)
    rotation = registry.spelled("correct_under_rotation", r=arg.r)
    noise = registry.spelled("noise_robustness", samples=arg.noise_samples, sigma=arg.sigma)
    distance = registry.spelled("boundary_distance", iterations=arg.iterations, evaluations=arg.evaluations)
    own = dict(d=arg.d, iterations=arg.shift_iterations, evaluations=arg.shift_evaluations)
    combined = registry.spelled("boundary_distance_under_shift", **own)
    learned = dict(name="attack_model", kind="logistic")
    networks = dict(name="attack_model", kind="mlp", per_class=True, scale=False)
    letters = dict(
        b=dict(gap=dict()),
        n=dict(confidence=dict(name="threshold", signal="max_confidence"), confidence_of_label=dict(name="threshold", signal="confidence")),
        d=dict(
            translation=dict(name="lookup", signal=shift),
            translation_logistic=dict(learned, features=(shift,)),
            translation_networks=dict(networks, features=(shift,), options=dict(network="d")),
        ),
        r=dict(rotation=dict(name="lookup", signal=rotation), rotation_networks=dict(networks, features=(rotation,), options=dict(network="r"))),
        g=dict(noise=dict(name="threshold", signal=noise)),
        a=dict(boundary=dict(name="threshold", signal=distance)),
        c=dict(combined=dict(learned, features=(combined,))),
    )
    for letter in arg.attacks:
        checks.one_of(letters, attacks=letter)
    plain = {name: attack for letter in arg.attacks for name, attack in letters[letter].items()}
    behind = {f"{name}_memguard": dict(name=name) | attack | dict(defense="memguard") for name, attack in plain.items() if "_net" not in name}
    return plain | behind
