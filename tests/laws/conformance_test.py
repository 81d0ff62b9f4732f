"""The laws that every attack, signal and design obeys, tested on whatever files exist, with their
defaults.
"""

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import registry, threat_model
from mia_jax.attacks import _probability
from mia_jax.designs import bernoulli, blocks, canaries, disjoint, folds, halves, holdout, two_way
from mia_jax.external import design as supplied_design
from mia_jax.query import interactive
from mia_jax.runtime import stacks
from mia_jax.threat_model import FleetSignals
from mia_jax.types import ACCESS, classification
from tests import planted, toys

KEY = jax.random.key(0)
ATTACKS, SIGNALS, DESIGNS = (registry.names(kind) for kind in ("attacks", "signals", "designs"))
ASKING = [
    name for name in SIGNALS if registry.make("signals", name).ask is not None
]  # signals with questions of their own
SIGNALS = [name for name in SIGNALS if name not in ASKING]
SMALLER = dict(  # settings of an asking signal under which it is quick
    boundary_distance="iterations=2,evaluations=8",
    boundary_distance_under_shift="iterations=1,evaluations=8",
    noise_distance="iterations=1,evaluations=8",
    noise_robustness="samples=30",
    carlini_wagner_distance="iterations=20,search_steps=2",
    one_query="steps=3",
    transfer="steps=3,queries=3",
)
# defaults are swept by themselves; further settings of an attack that take another way through it
VARIANTS = dict(
    lira=(
        dict(mode="offline"),
        dict(mode="offline", offline_score="log_pdf"),
        dict(center="median"),
        dict(variance="pooled"),
        dict(variance="global"),
        dict(variance="shrunk"),
        dict(variance="shrunk", mode="offline"),
        dict(views="multivariate"),
    ),
    rmia=(dict(mode="offline"), dict(signal="loss", temperature=1.0, views="majority")),
    base=(dict(mode="offline"),),
    offset=(dict(side="both", center="median"), dict(side="in")),
    multi_signal=(dict(joint="multivariate"),),
    privacy_risk_score=(dict(per_class=True),),
    trajectory=(dict(form="lira"),),
    attack_model=(
        dict(fit="target", features=("loss", "correct")),
        dict(features=("boundary_distance_under_shift",)),
    ),
    threshold=(dict(signal="boundary_distance"), dict(signal="noise_robustness", prefix=2)),
    lookup=(dict(per_class=True),),
)
CASES = [(name, {}) for name in ATTACKS] + [
    (name, fields) for name in VARIANTS for fields in VARIANTS[name]
]


def supplied(member_MN, target=False):
    """The design of a membership matrix that a user supplies, with 20 population rows; a target has
    its twin and itself among the shadows.
    """
    population_N = np.arange(120) >= 100
    member_MN = member_MN & ~population_N
    if target:
        member_MN[2:4] = member_MN[0], ~member_MN[0] & ~population_N
    return supplied_design.make(member_MN, population_N, target=target, shadows=True)[0]


SMALL = dict(  # designs of 120 rows
    halves_4=lambda: halves.make(num_examples=120, seed=0, models=4),
    halves=lambda: halves.make(num_examples=120, seed=0, models=12),
    bernoulli=lambda: bernoulli.make(num_examples=120, seed=0, models=8),
    canaries=lambda: canaries.make(num_examples=120, seed=0, models=8),
    disjoint=lambda: disjoint.make(num_examples=120, seed=0, models=10, targets=4),
    blocks=lambda: blocks.make(num_examples=120, seed=0, size=12, sources=3, population=0.1),
    two_way=lambda: two_way.make(num_examples=120, seed=0, drawn=True),
    folds=lambda: folds.make(num_examples=120, seed=0),
    holdout=lambda: holdout.make(num_examples=120, seed=0, drawn=True),
    supplied_fixed_counts=lambda: supplied(
        np.random.default_rng(0).random((8, 120)).argsort(0) < 4
    ),
    supplied_target=lambda: supplied(np.random.default_rng(0).random((7, 120)) < 0.5, target=True),
)
attack_case = pytest.mark.parametrize(
    "name, fields", CASES, ids=[f"{n}{'-'.join(['', *map(str, f.values())])}" for n, f in CASES]
)


def planted_fleet(
    attack, *, mu: float, seed: int, models: int = 12, num_examples: int = 120, query_views: int = 1
) -> FleetSignals:
    design = halves.make(num_examples=num_examples, seed=seed, models=models)
    return planted.fleet(
        design, *planted.signal_names(attack), mu=mu, seed=seed, query_views=query_views
    )


def programs(attack) -> list:
    """Returns the attack as (fleet -> score_TN): target by target and, if it can, all at once."""
    return [lambda f: planted.scores(f, attack, KEY)] + (
        [lambda f: attack.score_all(f, KEY)] if attack.score_all else []
    )


def within_four_standard_errors(aucs: list[float]) -> bool:
    return abs(np.mean(aucs) - 0.5) <= 4 * np.std(aucs, ddof=1) / np.sqrt(len(aucs)) + 1e-12


# ---- attacks: law 1 ----


@attack_case
def test_a_planted_leak_is_found(name, fields):
    attack = registry.make("attacks", name, fields)
    fleet = planted_fleet(attack, mu=6.0, seed=0, models=20, num_examples=300, query_views=2)
    for program in programs(attack):
        score_TN = program(fleet)
        assert score_TN.shape == (20, 300) and score_TN.dtype == np.float64
        assert planted.mean_auc(fleet, score_TN) > (
            0.9 if fields.get("offline_score") != "log_pdf" else 0.85
        ), name


@attack_case
@pytest.mark.parametrize("design", SMALL)
def test_a_planted_leak_is_found_on_every_design_that_carries_the_attack(name, fields, design):
    attack = registry.make("attacks", name, fields)
    fleet = planted.fleet(SMALL[design](), *planted.signal_names(attack), mu=6.0, seed=0)
    if not fleet.refuse(attack, name):
        for program in programs(attack):
            assert planted.mean_auc(fleet, program(fleet)) > 0.8


@attack_case
def test_signals_that_stay_in_their_files_give_the_same_scores(name, fields, monkeypatch):
    """Bit for bit, and so do log probabilities that are computed whenever they are read."""
    monkeypatch.setattr(_probability, "WHOLE", 0)
    attack = registry.make("attacks", name, fields)
    fleet = planted_fleet(attack, mu=1.0, seed=0, models=4, query_views=2)
    lazy = {
        signal: stacks.Stack(list(value), shape=value.shape, dtype=value.dtype)
        for signal, value in fleet.signal.items()
    }
    for program in programs(attack):
        expected, scored = program(fleet), program(dataclasses.replace(fleet, signal=lazy))
        assert scored.tobytes() == expected.tobytes()


@attack_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_answers_of_all_models_about_all_rows_are_a_coin_flip(name, fields, dtype):
    """All scores of a target tie, whatever the number of shadows a row has: rounding must not tell
    it.
    """
    attack = registry.make("attacks", name, fields)
    for design in (SMALL["bernoulli"], SMALL["canaries"], SMALL["supplied_target"]):
        fleet = planted.fleet(design(), *planted.signal_names(attack), mu=0.0, seed=3)
        if fleet.refuse(attack, name):
            continue
        scale = np.asarray(
            1.1 if dtype == np.float64 else 1, dtype
        )  # 1.1 times a float32: sums of a few such float64 are not exact
        equal = {
            k: np.broadcast_to(v[:1, :1, :1].astype(dtype) * scale, v.shape)
            for k, v in fleet.signal.items()
        }
        fleet = dataclasses.replace(
            fleet, signal=equal, x=np.zeros_like(fleet.x), y=np.zeros_like(fleet.y)
        )
        for program in programs(attack):
            for score_N, evaluated_N in zip(
                program(fleet), fleet.design.evaluated_MN[list(fleet.design.targets)], strict=True
            ):
                assert len(np.unique(score_N[evaluated_N])) == 1


@attack_case
@pytest.mark.parametrize("models", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (8, 20))])
def test_signals_independent_of_membership_are_uninformative(name, fields, models):
    attack = registry.make("attacks", name, fields)
    aucs = []
    for seed in range(30):
        fleet = planted_fleet(attack, mu=0.0, seed=seed, models=models)
        aucs.append(planted.mean_auc(fleet, programs(attack)[-1](fleet)))
    assert within_four_standard_errors(aucs), (np.mean(aucs), np.std(aucs))


@attack_case
@pytest.mark.parametrize("models", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_the_signals_of_another_pair_are_uninformative_about_this_target(name, fields, models):
    attack = registry.make("attacks", name, fields)
    aucs = []
    for seed in range(30):
        fleet = planted_fleet(attack, mu=2.0, seed=100 + seed, models=models)
        swapped = dataclasses.replace(
            fleet, signal={k: np.concatenate([v[2:3], v[1:]]) for k, v in fleet.signal.items()}
        )
        evaluated_N, member_N = fleet.design.evaluated_MN[0], fleet.design.member_MN[0]
        score_N = attack.score(
            swapped.evidence_against(0, attack.needs, attack.knows), KEY
        )  # model 2 poses as model 0
        aucs.append(planted.auc(score_N[evaluated_N], member_N[evaluated_N]))
    assert within_four_standard_errors(aucs), (np.mean(aucs), np.std(aucs))


# ---- attacks: law 5 ----


@attack_case
def test_scores_do_not_depend_on_the_order_of_the_pool(name, fields):
    attack = registry.make("attacks", name, fields)
    fleet = planted_fleet(attack, mu=1.0, seed=0, query_views=2)
    order_N = np.random.default_rng(1).permutation(120)
    for program in programs(attack):
        np.testing.assert_allclose(
            program(planted.permuted(fleet, order_N)),
            program(fleet)[:, order_N],
            rtol=1e-9,
            atol=1e-12,
        )


@attack_case
@pytest.mark.parametrize("value", [0.0, 1.0, -1e4])
def test_constant_signals_give_finite_ties(name, fields, value):
    attack = registry.make("attacks", name, fields)
    fleet = planted_fleet(attack, mu=0.0, seed=0)
    fleet = dataclasses.replace(
        fleet, signal={k: np.full_like(v, value) for k, v in fleet.signal.items()}
    )
    for program in programs(attack):
        score_TN = program(fleet)
        assert np.isfinite(score_TN[fleet.design.evaluated_MN]).all()
        assert planted.mean_auc(fleet, score_TN) == 0.5


@attack_case
def test_scores_are_deterministic_and_finite_where_evaluated(name, fields):
    attack = registry.make("attacks", name, fields)
    fleet = planted_fleet(attack, mu=1.0, seed=0)
    for program in programs(attack):
        score_TN = program(fleet)
        assert np.isfinite(score_TN[fleet.design.evaluated_MN]).all()
        np.testing.assert_array_equal(score_TN, program(fleet))


@attack_case
def test_every_target_at_once_equals_one_target_at_a_time(name, fields):
    attack = registry.make("attacks", name, fields)
    fleet = planted_fleet(attack, mu=1.0, seed=0, query_views=2)
    first, *rest = [program(fleet) for program in programs(attack)]
    for other in rest:
        np.testing.assert_allclose(other, first, rtol=1e-9, atol=1e-9)


# ---- attacks: law 6 ----


def huge(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return (rng.normal(size=shape) * 1e6).astype(np.float32)


def poison(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return np.choose(rng.integers(2, size=shape), [huge(shape, rng), np.nan]).astype(np.float32)


def mutated(fleet: FleetSignals, attack, t: int, garbage, rng: np.random.Generator) -> FleetSignals:
    """The fleet with garbage in all that an attacker of t with these needs must not read, and t's
    and its twin's memberships shuffled.

    Exempt is the membership of t itself for an attack that needs 'member': a cross-fit on the
    target, which must say that it knows half of it.
    """
    d, n = fleet.design, fleet.design.member_MN.shape[1]
    uses = [need for need in attack.needs if need in threat_model.SHADOW_NEEDS]
    read_MN = np.zeros_like(d.member_MN)
    shadows = d.shadow_MM[t] if uses else np.zeros(len(d.shadow_MM), bool)
    for m in np.flatnonzero(shadows):
        read_MN[m] |= d.member_MN[m] & d.evaluated_MN[t] if "shadow_in" in uses else False
        read_MN[m] |= ~d.member_MN[m] & d.evaluated_MN[t] if "shadow_out" in uses else False
        read_MN[m] |= d.evaluated_MN[m] if "shadow_own" in uses else False
        read_MN[m] |= d.population_N if "population" in attack.needs else False
    read_MN[t] = d.evaluated_MN[t] | (d.population_N if "population" in attack.needs else False)
    signal = {}
    for k, v in fleet.signal.items():
        keep = np.broadcast_to(
            read_MN[:, None].reshape(len(read_MN), 1, n, *[1] * (v.ndim - 3)), v.shape
        )
        signal[k] = np.where(keep, v, garbage(v.shape, rng))
    signal["not_asked_for"] = garbage((len(read_MN), 1, n), rng)
    member_MN = d.member_MN.copy()
    for m in np.flatnonzero(d.unit_M == d.unit_M[t]):
        if m == t and "member" in attack.needs and attack.knows == threat_model.CROSS_FITTED:
            continue
        member_MN[m, d.evaluated_MN[m]] = rng.permutation(member_MN[m, d.evaluated_MN[m]])
    return dataclasses.replace(
        fleet,
        design=dataclasses.replace(d, member_MN=member_MN),
        signal=signal,
        x=fleet.x if "x" in attack.needs else garbage(fleet.x.shape, rng),
        y=fleet.y if "y" in attack.needs else rng.permutation(fleet.y),
        columns=fleet.columns if "columns" in attack.needs else dict(noise=garbage((n,), rng)),
    )


@attack_case
@pytest.mark.parametrize("design", SMALL)
def test_garbage_outside_the_threat_model_does_not_change_a_bit(name, fields, design):
    attack = registry.make("attacks", name, fields)
    fleet = planted.fleet(
        SMALL[design](), *planted.signal_names(attack), mu=1.0, seed=0, query_views=2
    )
    if fleet.refuse(attack, name):
        assert repr(name) in fleet.refuse(attack, name) and repr(fleet.design.name) in fleet.refuse(
            attack, name
        )
        return
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for t in fleet.design.targets[:4:3]:
        expected_N = attack.score(fleet.evidence_against(t, attack.needs, attack.knows), KEY)
        found_N = attack.score(
            mutated(fleet, attack, t, poison, rng).evidence_against(t, attack.needs, attack.knows),
            KEY,
        )
        np.testing.assert_array_equal(found_N, expected_N)
        if attack.score_all:
            expected_N = attack.score_all(fleet, KEY)[fleet.design.targets.index(t)]
            found_N = attack.score_all(mutated(fleet, attack, t, huge, rng), KEY)[
                fleet.design.targets.index(t)
            ]
            np.testing.assert_array_equal(found_N, expected_N)
            alone = mutated(fleet, attack, t, poison, rng)
            alone = dataclasses.replace(
                alone, design=dataclasses.replace(alone.design, targets=(t,))
            )
            np.testing.assert_array_equal(attack.score_all(alone, KEY)[0], expected_N)


@pytest.mark.parametrize(
    "fields", [{}, dict(mode="offline"), dict(variance="pooled"), dict(views="multivariate")]
)
@pytest.mark.parametrize("name", ["lira", "offset", "reference", "multi_signal"])
def test_garbage_does_not_change_a_bit_of_scores_of_float64_signals(name, fields):
    """External float64 signals are centered first, only on what this target's attacker sees."""
    if set(fields) - set(registry.keywords("attacks", name)):
        return
    attack = registry.make("attacks", name, fields)
    fleet = planted.fleet(
        SMALL["halves"](), *planted.signal_names(attack), mu=1.0, seed=0, query_views=2
    )
    fleet = dataclasses.replace(
        fleet, signal={k: v.astype(np.float64) + 1e9 for k, v in fleet.signal.items()}
    )
    rng = np.random.default_rng(0)
    for t in fleet.design.targets[:4:3]:
        expected_N = attack.score(fleet.evidence_against(t, attack.needs), KEY)
        np.testing.assert_array_equal(
            attack.score(
                mutated(fleet, attack, t, poison, rng).evidence_against(t, attack.needs), KEY
            ),
            expected_N,
        )
        if attack.score_all:
            all_N = attack.score_all(mutated(fleet, attack, t, huge, rng), KEY)[
                fleet.design.targets.index(t)
            ]
            np.testing.assert_allclose(all_N, expected_N, rtol=1e-8, atol=1e-9)
            np.testing.assert_array_equal(
                all_N, attack.score_all(fleet, KEY)[fleet.design.targets.index(t)]
            )


@attack_case
def test_needs_and_knowledge_are_declared(name, fields):
    attack = registry.make("attacks", name, fields)
    assert attack.needs and attack.knows in (
        "nothing",
        "shadows",
        "half_of_target_members",
        "oracle_threshold",
    )
    known = (
        *threat_model.SHADOW_NEEDS,
        *threat_model.OTHER_NEEDS,
        *SIGNALS,
        *ASKING,
        "loss_trajectory",
    )
    assert {need.partition(":")[0] for need in attack.needs} <= set(known)
    assert ("member" in attack.needs) == (attack.knows == threat_model.CROSS_FITTED)
    if attack.knows == "nothing":
        assert not set(attack.needs) & {*threat_model.SHADOW_NEEDS, "population"}


# ---- signals ----


def outputs(seed: int = 0, batch: int = 16, classes: int = 5):
    """Logits and the examples that they answer."""
    rng = np.random.default_rng(seed)
    out_BC = jnp.asarray(rng.normal(size=(batch, classes)) * 4, jnp.float32)
    return out_BC, toys.examples(
        jnp.asarray(rng.integers(classes, size=batch), jnp.int32), task=classification(classes)
    )


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_is_float32_a_row_per_example_and_independent_of_the_batch(name):
    signal = registry.make("signals", name)
    out_BC, examples = outputs()
    value = signal.measure(out_BC, examples)
    assert (
        value.dtype == jnp.float32
        and value.shape in ((16,), (16, 2), (16, 5))
        and signal.sign in (-1, 0, 1)
    )
    assert (signal.sign == 0) == (value.ndim > 1)
    for i in (0, 7):
        alone = dataclasses.replace(examples, y=examples.y[i : i + 1])
        np.testing.assert_allclose(
            signal.measure(out_BC[i : i + 1], alone)[0], value[i], rtol=1e-6, atol=1e-12
        )


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_works_under_jit_and_vmap_over_models(name):
    measure = registry.make("signals", name).measure
    out_BC, examples = outputs()
    out_MBC = jnp.stack([out_BC, 2 * out_BC, -out_BC])
    fast = jax.jit(jax.vmap(measure, (0, None)))(out_MBC, examples)
    np.testing.assert_allclose(
        fast, jnp.stack([measure(out, examples) for out in out_MBC]), rtol=2e-6, atol=1e-7
    )


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_is_finite_at_saturation(name):
    measure = registry.make("signals", name).measure
    extreme_BC = jnp.asarray(
        np.random.default_rng(0).choice([-1e4, 0.0, 1e4], size=(64, 5)), jnp.float32
    )
    assert np.isfinite(measure(extreme_BC, outputs(batch=64)[1])).all()


@pytest.mark.parametrize("name", SIGNALS)
def test_the_sign_points_to_confident_correct_answers(name):
    signal = registry.make("signals", name)
    confident_BC, unsure_BC = jnp.array([[8.0, 0.0, 0.0]]), jnp.array([[0.1, 0.2, 0.0]])
    if signal.sign:
        better, worse = (
            signal.sign * signal.measure(out_BC, toys.examples([0], task=classification(3)))[0]
            for out_BC in (confident_BC, unsure_BC)
        )
        assert better > worse


# ---- signals with questions of their own ----


def questions(name: str, transform=None):
    """Returns an asking signal with a toy network and examples.

    That is (ask(variables, x_B.., y_B, key_B) -> (value_B.., count_B..), signal, variables, images,
    labels, keys).
    """
    signal = registry.make(
        "signals", name + ":" * (name in SMALLER) + SMALLER.get(name, "")
    )._replace(transform=transform)
    rng = np.random.default_rng(0)
    x_B = jnp.asarray(rng.random((6, 4, 4, 1)), jnp.float32)
    model = toys.mlp(num_classes=3, width=16)
    variables = model.init(jax.random.key(0), x_B[:1])
    flat = lambda x: x.reshape(len(x), -1)  # noqa: E731
    model = model._replace(
        inside=lambda v, x: dict(
            penultimate=flat(x) @ v["params"]["Dense_0"]["kernel"],
            goodness=jnp.stack([flat(x)[:, :10]] * 2, -1),
        )
    )
    label_B = model.apply(variables, x_B)[0].argmax(-1)
    y_B = jnp.where(jnp.arange(6) == 5, (label_B + 1) % 3, label_B)  # the last one is misclassified
    key_B = interactive.example_keys(seed=0, name=name, index_B=np.arange(6))
    shadow_variables = (
        jax.vmap(lambda key: model.init(key, x_B[:1]))(
            jax.random.split(jax.random.key(9), signal.shadows)
        )
        if signal.shadows
        else None
    )
    member_SB = (np.arange(signal.shadows) % 2 == 0)[:, None] & np.ones(6, bool)[None]

    def ask(variables, x_B, y_B, key_B):
        answer = signal.ask(
            interactive.probe_of(
                model,
                variables,
                (shadow_variables, member_SB) if signal.shadows else (),
                signal=signal,
            ),
            x_B,
            y_B,
            key_B,
        )
        return answer if isinstance(answer, tuple) else (answer,)

    return ask, signal, variables, x_B, y_B, key_B


@functools.cache
def compiled_questions(name: str):
    """Returns `questions(name)` with its `ask` compiled, once for all tests."""
    ask, *rest = questions(name)
    return jax.jit(ask), *rest


@pytest.mark.parametrize("name", ASKING)
def test_an_asking_signal_is_finite_counted_and_independent_of_the_batch(
    name,
):
    ask, signal, variables, x_B, y_B, key_B = compiled_questions(name)
    value, *counts = ask(variables, x_B, y_B, key_B)
    assert value.dtype == jnp.float32 and len(value) == 6 and np.isfinite(value).all()
    assert signal.sign in (-1, 0, 1) and signal.access in ACCESS
    most = signal.queries(16) if callable(signal.queries) else signal.queries
    assert most >= 1
    if counts:
        assert (
            counts[0].shape in ((6,), value.shape)
            and (counts[0] >= 0).all()
            and counts[0].max() <= most
        )
    rolled = np.roll(np.arange(6), 2)
    other = jnp.where(
        (jnp.arange(6) == 2)[:, None, None, None], x_B[rolled], 0.5
    )  # example 0 third, among strangers
    moved, *again = ask(variables, other, y_B[rolled], key_B[rolled])
    np.testing.assert_array_equal(moved[2], value[0])
    for a, b in zip(again, counts, strict=True):
        np.testing.assert_array_equal(a[2], b[0])


@pytest.mark.parametrize("name", ASKING)
def test_an_asking_signal_works_under_vmap_over_models(name):
    ask, _, variables, x_B, y_B, key_B = compiled_questions(name)
    several = jax.tree.map(lambda a: jnp.stack([a, -a]), variables)
    value_MB = jax.jit(jax.vmap(ask, (0, None, None, None)))(several, x_B, y_B, key_B)[0]
    alone = ask(variables, x_B, y_B, key_B)[0]
    np.testing.assert_allclose(value_MB[0], alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name", [n for n in ASKING if registry.make("signals", n).access == "labels"]
)
def test_a_label_only_signal_sees_labels_only(name):
    """It works on a probe without outputs, and a defense that leaves the labels leaves it unchanged
    to the bit.
    """
    ask, signal, variables, *rest = compiled_questions(name)
    probe = interactive.probe_of(toys.mlp(num_classes=3, width=16), variables, signal=signal)
    assert probe.out is None and probe.inside is None
    plain = ask(variables, *rest)
    defended, _, variables, *rest = questions(
        name, transform=lambda out_BC: jax.nn.one_hot(out_BC.argmax(-1), out_BC.shape[-1])
    )
    assert toys.same(plain, jax.jit(defended)(variables, *rest))


# ---- designs ----


def design_of(name: str, seed: int = 0, num_examples: int = 12_000):
    return registry.make("designs", name, num_examples=num_examples, seed=seed)


@pytest.mark.parametrize("name", DESIGNS)
def test_an_attacker_never_sees_the_target_nor_its_twin(name):
    d = design_of(name)
    m = len(d.member_MN)
    assert not d.shadow_MM[np.arange(m), np.arange(m)].any()
    if d.supports:
        assert not d.shadow_MM[d.unit_M[:, None] == d.unit_M[None]].any()
        assert d.shadow_MM[list(d.targets)].any(1).all()
    assert d.supports <= set(threat_model.SHADOW_NEEDS) and d.note and d.name == name


@pytest.mark.parametrize("name", DESIGNS)
def test_population_is_untouched_and_both_sides_are_evaluated(name):
    d = design_of(name)
    member_MN, evaluated_MN = d.member_MN, d.evaluated_MN
    assert (
        member_MN.dtype == evaluated_MN.dtype == d.population_N.dtype == d.shadow_MM.dtype == bool
    )
    assert not member_MN[:, d.population_N].any() and not evaluated_MN[:, d.population_N].any()
    assert (member_MN & evaluated_MN).any(1).all() and (~member_MN & evaluated_MN).any(1).all()
    assert (member_MN.sum(1) <= d.num_rows).all() and d.num_rows > 0


@pytest.mark.parametrize("name", DESIGNS)
def test_counting_in_shadows_is_uninformative(name):
    d = design_of(name)
    if d.supports:
        aucs = []
        for t in d.targets:
            e = d.evaluated_MN[t]
            aucs.append(planted.auc(d.member_MN[d.shadow_MM[t]].sum(0)[e], d.member_MN[t, e]))
        assert 0.45 <= np.mean(aucs) <= 0.55
    else:
        assert not d.supports & set(threat_model.SHADOW_NEEDS)


@pytest.mark.parametrize("name", DESIGNS)
def test_designs_are_reproducible_and_seeds_differ(name):
    design, same, other = design_of(name, 0), design_of(name, 0), design_of(name, 1)
    for field in ("member_MN", "evaluated_MN", "shadow_MM", "population_N", "unit_M"):
        np.testing.assert_array_equal(getattr(design, field), getattr(same, field))
    drawn = dict(drawn=True) if "drawn" in registry.keywords("designs", name) else {}
    first, second = (
        registry.make("designs", name, drawn, num_examples=12_000, seed=s) for s in (0, 1)
    )
    assert (first.member_MN != second.member_MN).any()
    assert design.num_rows == other.num_rows


@pytest.mark.parametrize("name", DESIGNS)
def test_an_extended_design_keeps_its_first_models(name):
    d = design_of(name, num_examples=20_000)
    models = len(d.member_MN)
    try:
        more = d.extend(models + 2)
    except ValueError as refusal:
        assert f"models={models + 2}" in str(refusal)  # a fixed number of models, and it says so
        more = d.extend(models)
    for field in ("member_MN", "evaluated_MN", "unit_M"):
        np.testing.assert_array_equal(getattr(more, field)[:models], getattr(d, field))
    np.testing.assert_array_equal(more.shadow_MM[:models, :models], d.shadow_MM)
    np.testing.assert_array_equal(more.population_N, d.population_N)
    assert more.num_rows == d.num_rows and more.supports == d.supports
