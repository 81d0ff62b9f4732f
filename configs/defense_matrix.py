r"""Crosses defenses with attacks: every attack on models behind every defense, with utility.

    python launch.py --config=configs/defense_matrix.py --workdir=runs/matrix
    python launch.py --config=configs/defense_matrix.py:data=fashion_mnist \
        --workdir=runs/matrix_fashion

This config is a grid that needs no --grid. The page is runs/matrix/report/matrix.html. One defense
alone is --config=defense_matrix:defense=relax_loss (those that start from other models also need
weights=, the workdir of the variant public_only).

All models of all defenses have the same halves of the same rows: differences to the undefended
models are paired. The first ten models are audited and are not shadow models of one another, so
that an owner can defend them alone.

Defenses of training: the attacker trains shadow models with the same defense. Defenses of outputs
(memguard, ...): every attack runs twice, by an attacker whose shadow models are undefended, and by
one who asks them behind the same defense. These variants use the undefended models.

A fifth of the rows is public: they are not audited, and owners use them beside their members (for
the attacker of adversarial regularization, distillation on other rows, fitting a temperature,
pre-training).

Time for the digits: 827 CPU seconds on a busy machine.

Expected (digits, 10 audited models): the strongest attack on undefended models is lira, AUC 0.650
[0.626, 0.673]. dp_transfer 0.545 [0.530, 0.559], last_layer 0.575 [0.550, 0.599], early_stopping
0.607 [0.590, 0.625], label_smoothing 0.820 [0.801, 0.838]; memguard leaves noise, which reads
labels alone, at 0.545. All lines are in RESULTS.md.

Arguments: data (digits, or fashion_mnist, n = 2,500 per model), folder (of Fashion-MNIST), models,
epochs, defense, weights.
"""

from mia_jax import checks, configuration, registry

TARGETS = 10  # five pairs; the other models are shadows
# A defense -> what it is. Those after PRETRAINED start from its models.
PRETRAINED = "public_only"
TRAINING = dict(
    none="no defense",
    l1="penalty on the sum of |w| of dense kernels",
    l2="penalty of weight 1 on the sum of squares of dense kernels",
    l2_mild="penalty of weight 0.01 on the sum of squares of dense kernels",
    weight_decay="decoupled weight decay (AdamW)",
    dropout="dropout of half of the hidden units",
    early_stopping="stops where the loss on population rows is lowest",
    label_smoothing="labels mixed with the uniform distribution (0.2)",
    confidence_penalty="cross-entropy minus half the entropy of the output",
    mixup="convex combinations of examples and labels",
    cutout="a random square of every image is set to 0",
    shifts="trains on all 5 shifts by one pixel",
    adversarial_training="trains on adversarially perturbed examples",
    adversarial_regularization="trains against a membership classifier",
    relax_loss="keeps the training loss near a target",
    distillation="a student learns the outputs of a teacher on public rows",
    selena="a student learns, for every member, the outputs of teachers trained without it",
    dp_sgd="differentially private training",
    public_only="trained on the public rows alone: no audited row was seen",
    last_layer="public_only, whose last layer is trained on the members",
    full_fine_tune="public_only, trained further on the members",
    dp_transfer="public_only, trained further with differential privacy",
    purification="logits divided by a temperature that is fitted to the public rows",
    pre_training="trained on the members, then further on the public rows: audits pre-training",
)
OUTPUT = dict(
    memguard="one probability for the predicted class, one for all others",
    memguard_optimized="the smallest change that leaves a membership classifier undecided",
    top_k="shows the 3 largest probabilities",
    rounding="probabilities with one decimal",
    label_only="shows the predicted class",
    logit_noise="Gaussian noise on logits, determined by the query",
    temperature="logits divided by 5",
)
SPELLED = dict(
    top_k="top_k:k=3",
    rounding="rounding:digits=1",
    logit_noise="logit_noise:scale=1.0",
    temperature="temperature:t=5.0",
)
# What pipeline/grid.py makes a matrix of: the argument that chooses a defense, the variant without
# one, the attack whose scores say which released labels are right, and a sentence about each.
MATRIX = dict(argument="defense", undefended="none", accuracy="gap", about=TRAINING | OUTPUT)
TABLE = dict(attacks=("gap", "loss", "lira", "noise"), metrics=("auc", "tpr@0.01"))


def grid(arg=None):
    """Returns one variant per defense, all on the same halves of the same rows."""
    del arg
    return [(name, dict(defense=name)) for name in (*TRAINING, *OUTPUT)]


def get_config(arg=None):
    arg = configuration.arguments(
        arg,
        data="digits",
        folder="/usr/share/datasets/fashion-mnist",
        models=20,
        epochs=40,
        defense="none",
        weights="",
    )
    checks.one_of(("digits", "fashion_mnist"), data=arg.data)
    checks.one_of((*TRAINING, *OUTPUT), defense=arg.defense)
    digits = arg.data == "digits"
    model, learner = trained(arg, digits=digits)
    return configuration.complete(
        data=dict(name="digits", flat=False)
        if digits
        else dict(name="idx", folder=arg.folder, examples=7144),  # 2,500 members per model
        design=dict(
            name="halves",
            models=arg.models,
            targets=TARGETS,
            apart=True,
            population=0.1,
            extra=0.2,
        ),
        model=model,
        learner=learner,
        query=dict(batch_size=500, ask_batch_size=500),
        attacks=attacks(
            SPELLED.get(arg.defense, arg.defense) if arg.defense in OUTPUT else "", digits=digits
        ),
        report=dict(figures=False, shadow_curve=(), slices=(), fprs=(0.01, 0.1), records=()),
        run=dict(chunk=10),
    )


def trained(arg, *, digits: bool) -> tuple[dict, dict]:
    """Returns (model, learner) behind the defense that `arg` names."""
    net, epochs = dict(name="mlp", widths=(256,)), arg.epochs
    rate = 3e-3 if digits else 1e-3
    batch = dict(batch_size=32 if digits else 100)
    plain = batch | dict(learning_rate=rate, epochs=epochs, validation="nonmembers")
    started = dict(init_from=arg.weights or f"variant:{PRETRAINED}")
    private = dict(
        gradient="private",
        privacy=dict(clip_norm=1.0, noise_multiplier=None, epsilon=8.0, delta=1e-4),
        batch_size=4 * batch["batch_size"],
    )
    student = batch | dict(
        name="distillation", learning_rate=rate, validation="nonmembers", epochs=2 * epochs
    )
    choices = dict(
        l1=plain | dict(l1=1e-3),
        l2=plain | dict(l2=1.0),
        l2_mild=plain | dict(l2=0.01),
        weight_decay=plain | dict(optimizer=dict(name="adamw", weight_decay=1.0)),
        early_stopping=plain
        | dict(
            validation="population",
            stop=dict(monitor="val_loss", patience=3, restore_best=True),
        ),
        label_smoothing=plain | dict(objective=dict(name="cross_entropy", label_smoothing=0.2)),
        confidence_penalty=plain | dict(objective=dict(name="confidence_penalty", strength=0.5)),
        mixup=plain | dict(objective="mixup"),
        cutout=plain | dict(augment=("cutout:3" if digits else "cutout:10",)),
        shifts=plain | dict(shifts=1),
        adversarial_training=plain | dict(objective=dict(name="adversarial", epsilon=0.1)),
        adversarial_regularization=dict(
            name="adversarial_regularization",
            batch_size=4 * batch["batch_size"],  # its attack network is 30 times the classifier
            learning_rate=rate,
            epochs=2 * epochs,
            strength=3.0,
            validation="nonmembers",
        ),
        relax_loss=plain | dict(objective=dict(name="relax_loss", alpha=0.3 if digits else 0.5)),
        distillation=student | dict(on="extra", teacher_epochs=epochs),
        selena=student | dict(teachers=5, held_out=2, teacher_epochs=epochs),
        dp_sgd=plain | private,
        public_only=plain | dict(train_on="extra"),
        last_layer=plain | started | dict(trainable="Dense_1/"),
        full_fine_tune=plain | started,
        dp_transfer=plain | private | started,
        purification=plain
        | dict(
            train_on="members_then_extra",
            members_epochs=epochs,
            epochs=2 * epochs,
            extra_trainable="temperature/",
        ),
        pre_training=plain
        | dict(train_on="members_then_extra", members_epochs=epochs, epochs=2 * epochs),
    )
    if arg.defense == "dropout":
        net |= dict(dropout=0.5)
    if arg.defense == "purification":
        net = dict(name="scaled", body=net)
    return net, choices.get(arg.defense, plain)


def attacks(defense: str, *, digits: bool) -> dict:
    """Returns the attacks, behind a defense of outputs for both kinds of attackers.

    HopSkipJump in 784 dimensions takes longer than all other attacks together, so that boundary is
    one of the digits only.
    """
    noise = registry.spelled("noise_robustness", samples=25, sigma=0.15)
    boundary = registry.spelled("boundary_distance", iterations=2, evaluations=10)
    averaged = registry.spelled("averaged", signal="loss", queries=16)
    plain = dict(
        gap=dict(),
        translation=dict(name="lookup", signal=registry.spelled("correct_under_shift", d=1)),
        noise=dict(name="threshold", signal=noise),
        boundary=dict(name="threshold", signal=boundary),
        confidence=dict(name="threshold", signal="max_confidence"),
        modified_entropy=dict(name="threshold", signal="modified_entropy"),
        loss=dict(name="threshold", signal="loss"),
        averaged_loss=dict(name="threshold", signal=averaged),
        classifier=dict(name="attack_model", kind="logistic"),
        reference=dict(),
        rmia=dict(),
        lira_offline=dict(name="lira", mode="offline"),
        lira=dict(variance="shrunk"),
    )
    if not digits:
        del plain["boundary"]
    if not defense:
        return plain
    behind = {name: dict(name=name) | attack for name, attack in plain.items()}
    unaware = {name: attack | dict(defense=defense) for name, attack in behind.items()}
    aware = {
        f"{name}_adaptive": attack | dict(defense=defense, adaptive=True)
        for name, attack in behind.items()
    }
    return unaware | aware
