"""jax_enable_x64 changes nothing: plans, noise, initial parameters, attacks and signals have the
same dtypes and bits, and so has a whole run.
"""

import ast
import functools
import pathlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import augmentations, configuration, registry
from mia_jax.evasion import carlini_wagner, fgsm, hop_skip_jump, noise, pgd
from mia_jax.fitting import network
from mia_jax.learners import _private, adversarial_regularization, balanced_pairs, plan
from mia_jax.pipeline import run
from mia_jax.privacy import noise as privacy_noise
from mia_jax.privacy import sampling
from mia_jax.runtime import files as workdir
from mia_jax.training import programs
from mia_jax.training.devices import spread
from tests import sources

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "mia_jax").rglob("*.py"))
UNITS, KEY = 40, functools.partial(jax.random.key, 3)


def same(work):
    """The leaves of work() without jax_enable_x64, which must be those with it, dtypes included (of
    a whole number: its value).
    """
    results = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            results.append([np.asarray(leaf) for leaf in jax.tree.leaves(work())])
    for a, b in zip(*results, strict=True):
        assert (
            a.dtype == b.dtype or (a.dtype.kind in "iu" and b.dtype.kind in "iu")
        ) and np.array_equal(a, b, equal_nan=True), (a.dtype, b.dtype)
    return results[0]


def drawn(make_plan):
    """Three epochs of a plan over 40 rows of which the last four have weight 0."""
    rows, weight = (
        jnp.arange(UNITS, dtype=jnp.int32),
        jnp.asarray(np.arange(UNITS) < UNITS - 4, jnp.float32),
    )
    make_plan = jax.jit(make_plan)
    return [make_plan(KEY(), jnp.uint32(epoch), rows, weight) for epoch in (1, 2, 3)]


PLANS = dict(
    poisson=dict(size=24),
    shuffle=dict(size=10),
    without_replacement=dict(size=10),
    balls_in_bins=dict(size=30),
)


@pytest.mark.parametrize(
    "name, spread_slots",
    [
        *((name, True) for name in PLANS),  # spreads what a plan without it draws
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in PLANS),
    ],
)
def test_a_sampling_plan_draws_the_same_units(name, spread_slots):
    index, weight, *_ = same(
        lambda: drawn(
            sampling.plan(sampling=name, rate=0.25, steps=4, spread=spread_slots, **PLANS[name])
        )
    )
    assert index.dtype == np.int32 and weight.dtype == np.float32 and not np.isnan(weight).any()


def test_a_plan_of_users_and_other_plans_draw_the_same_rows():
    users = sampling.plan(sampling="poisson", rate=0.5, size=8, steps=3)
    same(lambda: drawn(sampling.of_groups(users, group_N=np.arange(UNITS) // 5, rows_each=2)))
    same(lambda: drawn(sampling.plan(sampling="poisson", rate=0.5, size=3, steps=3, cap=True)))
    same(
        lambda: drawn(
            adversarial_regularization.opponents_beside(num_rows=30, batch_size=8, attack_steps=2)
        )
    )
    same(
        lambda: drawn(balanced_pairs.balanced(labels_N=np.arange(UNITS) % 3, steps=3, batch_size=8))
    )


def test_a_permutation_puts_rows_of_weight_0_last():
    index, weight, *_ = same(lambda: drawn(plan.permutation(batch_size=10)))
    assert (
        sorted(index.reshape(-1)) == list(range(UNITS))
        and (weight.reshape(-1)[:36] == 1).all()
        and (weight.reshape(-1)[36:] == 0).all()
    )


@pytest.mark.parametrize("settings", [{}, dict(overflow="truncate")])
def test_batches_have_the_size_that_epsilon_was_computed_for(settings):
    n, batch = 808, 32
    with jax.enable_x64(True):
        private = _private.make(
            num_rows=n, batch_size=batch, epochs=4, noise_multiplier=1.0, **settings
        )
        one_plan = jax.jit(private.plan)
        weight = [
            one_plan(KEY(), jnp.uint32(e), jnp.arange(n), jnp.ones(n, jnp.float32))[1]
            for e in range(1, 5)
        ]
    sizes = np.concatenate(weight).sum(-1)
    assert abs(sizes.mean() - batch) < 5 * np.sqrt(batch * (1 - batch / n) / len(sizes))


def test_noise_has_the_same_bits():
    tree = dict(a=jnp.zeros((3, 5), jnp.float32), b=jnp.zeros(7, jnp.float32))
    same(jax.jit(lambda: privacy_noise.gaussian(KEY(), tree, 2.0)))
    same(
        jax.jit(lambda: privacy_noise.gaussian(jax.random.key(3, impl="rbg"), tree, jnp.float32(2)))
    )


NETS = dict(
    mlp=(dict(dropout=(0.2, 0.5), widths=(5, 4)), (6,)),
    small_cnn=({}, (24, 24, 1)),
    conv=({}, (16, 16, 3)),
    lenet_bn=({}, (28, 28, 1)),
    tanh_cnn=({}, (28, 28, 1)),
    wide_resnet=(dict(depth=10, width=1), (8, 8, 3)),
    resnet18=(dict(resize=0, width=4), (32, 32, 3)),
    forward_forward=(dict(widths=(6, 5)), (4, 4, 1)),
)


@pytest.mark.parametrize("name", NETS)
def test_a_net_starts_from_float32_parameters_and_answers_in_float32(name):
    fields, shape = NETS[name]
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    with jax.enable_x64(True):
        model = registry.make("models", name, dict(num_classes=3, **fields))
        variables, out = jax.eval_shape(
            lambda key, x: (v := model.init(key, x), model.apply(v, x)[0]), KEY(), x
        )
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, out))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_a_net_starts_from_the_same_bits_and_drops_the_same_units(name):
    fields, shape = NETS[name]
    model, x = (
        registry.make("models", name, dict(num_classes=3, **fields)),
        np.ones((2, *shape), np.float32),
    )

    def work():
        variables = model.init(KEY(), x)
        return variables, model.apply(variables, x, key_B=jax.random.split(KEY(), 2), train=True)

    same(jax.jit(work))


WEIGHTS = (
    np.random.default_rng(0).normal(size=(70, 3)).astype(np.float32)
)  # 70 features: directions from bit counts
X = np.random.default_rng(1).uniform(size=(4, 70)).astype(np.float32)


def out(x):
    return jnp.asarray(x) @ WEIGHTS


def label(x):
    return out(x).argmax(-1).astype(jnp.int32)


@pytest.mark.parametrize(
    "norm, features",
    [
        ("l2", 70),
        ("linf", 5),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("l2", 5), ("linf", 70))),
    ],
)
def test_the_walk_along_the_boundary_asks_the_same_questions(features, norm):
    x = X[:, :features]
    ask = lambda x: (x @ WEIGHTS[:features]).argmax(-1).astype(jnp.int32)  # noqa: E731

    def work():
        return hop_skip_jump.hop_skip_jump(
            ask,
            x,
            ask(x),
            jax.random.split(KEY(), 4),
            iterations=2,
            evaluations=20,
            norm=norm,
            tries=5,
        )

    same(jax.jit(work))


ATTACKS = dict(
    fgsm=lambda y, keys: fgsm.fgsm(out, X, y, epsilon=0.1),
    pgd=lambda y, keys: pgd.pgd(out, X, y, keys, epsilon=0.1, steps=3),
    pgd_l2=lambda y, keys: pgd.pgd(out, X, y, keys, epsilon=0.1, steps=3, norm="l2", restarts=2),
    carlini_wagner=lambda y, keys: carlini_wagner.carlini_wagner(
        out, X, y, iterations=20, search_steps=2
    ),
    survives=lambda y, keys: noise.survives(
        label, X, y, keys, copies=5, draw=lambda key, x: noise.gaussian(key, x, 0.2)
    ),
    flips=lambda y, keys: noise.survives(
        label, X, y, keys, copies=5, draw=lambda key, x: noise.flips(key, x, 0.2)
    ),
)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_evasion_attack_ends_at_the_same_point(name):
    same(jax.jit(lambda: ATTACKS[name](label(X), jax.random.split(KEY(), 4))))


@pytest.mark.parametrize("spec", ["flip", "shift:2", "crop:2", "rotate:20"])
def test_an_augmentation_is_the_same(spec):
    x = np.random.default_rng(2).uniform(size=(3, 8, 8, 1)).astype(np.float32)
    same(jax.jit(lambda: augmentations.make((spec,))(x, jax.random.split(KEY(), 3))))


def test_the_small_networks_of_attacks_are_the_same():
    data = network.Sets(
        X[None, :, :2],
        np.array([[0, 1, 0, 1]]),
        np.arange(4, dtype=np.int32)[None, None],
        np.array([[4]], np.int32),
    )
    shape = network.Shape(widths=(2, 3, 2), slope=0.1, loss="cross_entropy", batch_size=2, epochs=2)
    same(lambda: network.train(KEY(), data, rate_P=(1e-2,), penalty_P=(0.0,), shape=shape))


MODEL_OF_DOUBLES = '''
import jax, jax.numpy as jnp
from mia_jax.types import Model


def make(*, num_classes: int) -> Model:
    """A net of a user's own, which says no dtype."""

    def init(key, x):
        kernel = 0.1 * jax.random.normal(key, (x.shape[-1], num_classes))
        return {"params": {"kernel": kernel, "bias": jnp.zeros(num_classes)}}

    def apply(variables, x, *, key_B=None, weight_B=None, train=False):
        return x @ variables["params"]["kernel"] + variables["params"]["bias"][None], {}

    return Model(init, apply, lambda x: "", None)
'''

SIGNALS = (
    "loss",
    "boundary_distance:iterations=1,evaluations=10",
    "noise_robustness:samples=3",
    "correct_under_pgd:steps=2",
)


def config(tmp_path, **changes):
    fields = dict(
        data=dict(name="digits", flat=False, examples=300),
        design=dict(name="halves", models=4, population=0.1),
        model=dict(name="small_cnn", num_conv=1),
        learner=dict(
            name="backprop",
            batch_size=16,
            epochs=2,
            augment=("shift:1",),
            schedule="cosine_decay_schedule",
            optimizer="sgd",
            stop=None,
        ),
        attacks={f"a{i}": dict(name="threshold", signal=signal) for i, signal in enumerate(SIGNALS)}
        | dict(lira=dict(name="lira")),
        report=dict(slices=(), draws=40, figures=False),
        run=dict(chunk=2, lanes=2),
    )
    return configuration.complete(**fields | changes)


def files(folder) -> dict:
    """The arrays of a run's models, answers and scores but for the seconds that they took."""
    arrays = {
        str(p.relative_to(folder)): np.load(p, allow_pickle=False)
        for p in sorted(folder.rglob("*.npy"))
    }
    for path in sorted(folder.rglob("*.npz")):
        arrays |= {
            f"{path.relative_to(folder)}/{k}": v
            for k, v in workdir.read_npz(path).items()
            if not k.endswith("seconds")
        }
    return arrays


def equal_runs(settings, tmp_path, **options):
    runs = []
    for x64 in (False, True):
        folder = tmp_path / str(x64)
        with jax.enable_x64(x64):
            run.run(settings, workdir_path=folder, **options)
        runs.append(files(folder))
        assert workdir.read_json(folder / "run.json")["runs"][-1]["numerics"]["x64"] is x64
    assert runs[0].keys() == runs[1].keys() and len(runs[0]) > 5
    for name, a in runs[0].items():
        assert a.dtype == runs[1][name].dtype and np.array_equal(
            a, runs[1][name], equal_nan=a.dtype.kind == "f"
        ), name
    return runs[0]


def test_a_fleet_of_convolutions_is_the_same_to_the_last_bit(tmp_path, capsys):
    fields = config(tmp_path, attacks=dict(a=dict(name="threshold")))
    equal_runs(fields, tmp_path, stages_wanted=("train",))
    assert "computes in 32 bits" in capsys.readouterr().err


@pytest.mark.slow
def test_a_whole_run_with_attacks_on_labels_and_gradients_is_the_same(tmp_path):
    arrays = equal_runs(config(tmp_path), tmp_path)
    assert any(name.startswith("signal/boundary_distance") for name in arrays)


@pytest.mark.slow
def test_a_private_fleet_is_the_same(tmp_path):
    privacy = dict(clip_norm=1.0, noise_multiplier=1.0, overflow="truncate")
    changes = dict(
        learner=dict(name="backprop", batch_size=16, epochs=1, gradient="private", privacy=privacy)
    )
    changes |= dict(
        model=dict(name="mlp", widths=(4,)),
        attacks=dict(a=dict(name="threshold")),
        design=dict(name="halves", models=2, population=0.1),
    )
    equal_runs(config(tmp_path, **changes), tmp_path, stages_wanted=("train",))


def test_a_module_of_a_users_own_is_the_same_and_a_workdir_goes_on_with_x64(tmp_path, monkeypatch):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "doubles.py").write_text(MODEL_OF_DOUBLES)
    monkeypatch.syspath_prepend(tmp_path)
    changes = dict(
        data=dict(name="digits", examples=300),
        model=dict(name="nets.doubles"),
        attacks=dict(a=dict(name="threshold")),
    )
    changes |= dict(learner=dict(name="backprop", batch_size=16, epochs=2))
    equal_runs(config(tmp_path, **changes), tmp_path)
    with jax.enable_x64(True):  # nothing is refused, nothing trained again
        run.run(config(tmp_path, **changes), workdir_path=tmp_path / "False")
    assert [
        run["numerics"]["x64"] for run in workdir.read_json(tmp_path / "False" / "run.json")["runs"]
    ] == [False, True]


def test_strict_promotion_does_not_stop_a_run(tmp_path):
    changes = dict(model=dict(name="mlp", widths=(4,)), attacks=dict(a=dict(name="threshold")))
    with jax.numpy_dtype_promotion("strict"):
        run.run(config(tmp_path, **changes), workdir_path=tmp_path)


def test_a_matmul_precision_of_the_environment_changes_nothing_and_is_recorded(tmp_path, capsys):
    changes = dict(model=dict(name="mlp", widths=(4,)), attacks=dict(a=dict(name="threshold")))
    run.run(config(tmp_path, **changes), workdir_path=tmp_path, stages_wanted=("train",))
    claim = workdir.read_json(tmp_path / "train" / "config.json")
    assert "numerics" not in claim and "precision" not in claim["learner"]  # as in older versions
    with jax.default_matmul_precision("bfloat16"):
        run.run(config(tmp_path, **changes), workdir_path=tmp_path)
    assert "jax_default_matmul_precision is bfloat16" in capsys.readouterr().err
    both = [start["numerics"] for start in workdir.read_json(tmp_path / "run.json")["runs"]]
    assert [numerics["matmul_precision"] for numerics in both] == [None, "bfloat16"]
    assert both[0]["precision"] == dict(learner="float32", query="float32")


def test_another_precision_is_another_training_and_another_query(tmp_path):
    changes = dict(model=dict(name="mlp", widths=(4,)), attacks=dict(a=dict(name="threshold")))
    fields = config(tmp_path, **changes)
    run.run(fields, workdir_path=tmp_path)
    assert workdir.read_json(tmp_path / "report/report.json")["about"]["precision"] == dict(
        learner="float32", query="float32"
    )
    assert "trained and queried in float32" in (tmp_path / "report/report.md").read_text()
    for section, folder in (("learner", "train"), ("query", "signal")):
        other = type(fields)(fields.to_dict())
        other[section].precision = "bfloat16"
        with pytest.raises(ValueError, match=rf"{folder} belongs(.|\n)*precision: .*bfloat16"):
            run.run(other, workdir_path=tmp_path)
    other[section].precision = "float16"
    with pytest.raises(ValueError, match=r"query\.precision.*'float16'"):
        run.run(other, workdir_path=tmp_path)


def test_threads_compute_as_the_thread_that_started_them():
    seen = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            spread(
                lambda item, device, check: seen.append(jnp.sqrt(jnp.asarray(2)).dtype),
                [0, 1],
                jax.local_devices()[:1],
                lanes=2,
            )
            assert threading.active_count() >= 1
    assert seen == [jnp.float32] * 2 + [jnp.float64] * 2


def test_the_keys_of_models_are_the_same():
    same(lambda: jax.random.key_data(programs.model_keys(seed=2**40 + 5, models=range(4))))


# No sibling can come back
# --------------------------------------------------------------------------------

TAKES = dict(
    beta=4,
    bits=2,
    normal=2,
    uniform=2,
    truncated_normal=4,
    gumbel=2,
    exponential=2,
    laplace=2,
    rademacher=2,
    randint=4,
    cauchy=2,
    logistic=2,
)
ARRAYS = dict(
    zeros=1, ones=1, empty=1, full=2, arange=3, linspace=5, eye=3
)  # the place of dtype among the arguments
OTHERS = {
    "key",
    "split",
    "fold_in",
    "key_data",
    "key_impl",
    "wrap_key_data",
    "bernoulli",
    "permutation",
}


def called(tree):
    """(module, function, call) of every call of jax.random.x, jnp.x and jax.nn.initializers.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            text = ast.unparse(node.func)
            module, _, function = text.rpartition(".")
            if module in (
                "jax.random",
                "random",
                "jnp",
                "jax.numpy",
                "jax.nn.initializers",
                "jax.nn",
            ):
                yield module, function, node


def faults(tree) -> list[str]:
    """Draws, new arrays and initializers whose dtype jax_enable_x64 decides."""
    places = []
    for module, function, node in called(tree):
        has_dtype = any(word.arg == "dtype" for word in node.keywords)
        if module == "jax.random":
            known = function in TAKES or function in OTHERS
            right = has_dtype or len(node.args) > TAKES[function] if function in TAKES else known
            if function == "bernoulli":  # of p's dtype
                right = len(node.args) > 1 and ast.unparse(node.args[1]).startswith("jnp.float32(")
            if function == "permutation":
                right = "dtype" in ast.unparse(node.args[1])
        elif module == "jnp" and function in ARRAYS:
            right = has_dtype or len(node.args) > ARRAYS[function]
        elif module.endswith("initializers") or function == "one_hot":
            right = has_dtype
        else:
            continue
        if not right:
            places.append(f"line {node.lineno}: {ast.unparse(node)[:80]}")
    return places


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_draw_and_every_new_array_says_its_dtype(path):
    assert faults(sources.tree(path)) == []


@pytest.mark.parametrize(
    "line",
    [
        "jax.random.bits(key, (3,))",
        "jax.random.normal(key, (3,))",
        "jax.random.randint(key, (3,), 0, 5)",
        "jax.random.uniform(key)",
        "jax.random.bernoulli(key, 0.5)",
        "jax.random.bernoulli(key)",
        "jax.random.permutation(key, 5)",
        "jax.random.choice(key, 5)",
        "jnp.zeros(3)",
        "jnp.arange(3)",
        "jnp.full(3, 1.0)",
        "jax.nn.initializers.he_normal()",
        "jax.nn.one_hot(y, 5)",
    ],
)
def test_that_test_sees_what_it_looks_for(line):
    assert len(faults(ast.parse(line))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "jax.random.bits(key, (3,), jnp.uint32)",
        "jnp.zeros(3, jnp.float32)",
        "jnp.arange(3, dtype=jnp.int32)",
    ],
)
def test_that_test_accepts_what_says_its_dtype(line):
    assert faults(ast.parse(line)) == []
