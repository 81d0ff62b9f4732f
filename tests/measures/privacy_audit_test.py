"""The audit in the report: fixed beforehand, refused without independent coins, shared over
everything tried, loud when a claim is violated.
"""

import numpy as np
import pytest

import mia_jax
from mia_jax import configuration, threat_model
from mia_jax.designs import bernoulli, canaries, halves
from mia_jax.external import arrays as supplied_arrays
from mia_jax.measures import privacy_audit, releases
from mia_jax.pipeline import build, build_attacks, run
from mia_jax.privacy import audit, audit_runs, dirac
from mia_jax.privacy.mechanism import Mechanism
from mia_jax.report import answer, tables
from mia_jax.report import page as pages
from mia_jax.report.sections import privacy_audit as privacy_audit_section
from mia_jax.report.sections import target

KNOWS = dict(loss="nothing", lira="shadows", cheat="half_of_target_members")
COINS = canaries.make(num_examples=2000, seed=0, models=3, canaries=1000)


def scores(mu=0.0, design=COINS, seed=0):
    """Gaussian scores [T,N] of the evaluated rows."""
    score = np.random.default_rng(seed).normal(size=design.member_MN.shape) + mu * design.member_MN
    return np.where(design.evaluated_MN, score, np.nan)


def planned(design=COINS, knows=KNOWS, **fields):
    return privacy_audit.settings(fields, design=design, knows=knows, level=0.95)


def test_an_audit_is_fixed_before_scores_are_seen():
    assert planned() == dict(
        attacks=["loss", "lira"],
        single_run=["loss"],
        guesses=[0.05],
        delta=1e-5,
        method="one_run",
        level=0.95,
        epsilon=None,
        labels=False,
        shift=0.0,
        slack=0.0,
        control=None,
    )
    assert privacy_audit.settings(None, design=COINS, knows=KNOWS, level=0.95) == planned()
    plain = halves.make(num_examples=100, seed=0, models=4)
    assert privacy_audit.settings(None, design=plain, knows=KNOWS, level=0.95) is None
    assert planned(bernoulli.make(num_examples=100, seed=0, models=4))["attacks"] == [
        "loss",
        "lira",
    ]


def test_attacks_that_read_no_other_model_are_added_up_over_runs():
    read = {
        "population": dict(name="population"),
        "quantile": dict(name="quantile"),
        "quantile_of_shadows": dict(name="quantile", features=("shadow_out",)),
        "lira": dict(name="lira"),
        "threshold": dict(name="threshold"),
    }
    knows = {
        name: threat_model.knowledge(attack)
        for name, attack in build_attacks.make_attacks(read).items()
    }
    assert planned(knows=knows)["single_run"] == ["population", "quantile", "threshold"]
    assert planned(knows=knows)["attacks"] == list(read)


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            dict(design=halves.make(num_examples=100, seed=0, models=4)),
            "independent fair coins, and in the design 'halves'",
        ),
        (
            dict(design=bernoulli.make(num_examples=100, seed=0, models=4, probability=0.3)),
            "independent fair coins",
        ),
        (dict(guess=(0.1,)), "report.audit has no field 'guess'. Did you mean 'guesses'"),
        (dict(attacks=("lyra",)), "report.audit.attacks='lyra' is not one of .*'lira'"),
        (dict(attacks=("cheat",)), "attack 'cheat' knows 'half_of_target_members'"),
        (dict(knows=dict(cheat="half_of_target_members")), "needs at least one attack"),
        (dict(guesses=(0.6,)), r"report.audit.guesses=\(0.6,\)"),
        (dict(delta=0.0), "report.audit.delta=0.0"),
        (dict(method="best"), "report.audit.method='best'"),
    ],
)
def test_what_cannot_be_audited_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        planned(**fields)


def test_the_bound_shares_alpha_over_attacks_targets_and_numbers_of_guesses():
    score_TN = dict(loss=scores(0.0), lira=scores(2.0))
    section = privacy_audit.measure(planned(guesses=(0.05, 0.2)), design=COINS, score_TN=score_TN)
    assert section["bound"]["tests"] == 12 and section["attacks"]["lira"]["tests"] == 6
    assert (
        section["bound"]["attack"] == "lira"
        and 2
        < section["bound"]["epsilon"]
        < section["attacks"]["lira"]["epsilon"]
        < section["bound"]["ceiling"] + 0.5
    )
    t, counts = (
        section["bound"]["model"],
        (section["bound"][k] for k in ("canaries", "guesses", "correct")),
    )
    assert section["bound"]["epsilon"] == audit.one_run(
        audit.Guesses(*counts), delta=1e-5, alpha=0.05 / 12
    )
    expected = (
        privacy_audit.counts(score_TN["lira"][t], COINS, t, 0.05),
        privacy_audit.counts(score_TN["lira"][t], COINS, t, 0.2),
    )
    assert [e.guesses for e in expected] == [100, 400] and section["bound"]["guesses"] in (100, 400)
    assert section["attacks"]["loss"]["epsilon"] < 0.3 and not section["violated"]


def test_guesses_are_joined_by_coin_and_not_by_place():
    design = canaries.make(num_examples=300, seed=1, models=2, canaries=200, pairs=True)
    exact = np.where(design.member_MN, 1.0, -1.0)
    for t in (0, 1):
        assert privacy_audit.counts(exact[t], design, t, 0.5) == audit.Guesses(100, 100, 100)
        assert privacy_audit.counts(-exact[t], design, t, 0.5) == audit.Guesses(100, 100, 0)
        assert privacy_audit.counts(
            np.where(COINS.member_MN[t], 1.0, 0.0), COINS, t, 0.05
        ) == audit.Guesses(1000, 100, 100)


def test_scores_of_nothing_prove_nothing():
    bounds = [
        privacy_audit.measure(
            planned(attacks=("loss",)), design=COINS, score_TN=dict(loss=scores(seed=s))
        )["bound"]["epsilon"]
        for s in range(60)
    ]
    assert np.mean(np.array(bounds) > 0) <= 0.05


ROW = dict(
    attack="lira",
    target=None,
    slice="all",
    metric="auc",
    value=0.6,
    low=0.55,
    high=0.65,
    interval="records",
    method="bootstrap",
)
ROW |= dict(
    convention="", fpr_realized=None, n_member=500, n_nonmember=500, n_targets=1, knows="shadows"
)
CLAIM = dict(epsilon=1.0, delta=1e-5, accountant="pld", adjacency="add_remove", sampling="poisson")


def test_a_violated_claim_comes_first_and_is_said_aloud():
    rows = []
    for mu, violated in ((0.0, False), (4.0, True)):
        sections = dict(
            audit=privacy_audit.measure(
                planned(),
                design=COINS,
                score_TN=dict(loss=scores(mu), lira=scores(0.0)),
                claim=CLAIM,
            )
        )
        assert sections["audit"]["violated"] is violated
        rows.append(privacy_audit_section.text(**sections))
    honest, broken = rows
    assert "Claimed at delta 1e-05: epsilon at most 1. Audited: epsilon at least 0." in honest
    assert "No violation was detected, which does not prove" in honest
    assert "VIOLATED" not in honest
    assert (
        "THE CLAIM IS VIOLATED: epsilon is at least 2.9" in broken and "and 1 is claimed" in broken
    )
    for text in rows:
        assert (
            "accounted upper bound | 1 | accountant pld, adjacency add_remove, sampling poisson"
            in text
            and "95% confidence" in text
            and "1,000 coins per model" in text
        )
    page = pages.report(dict(results=[ROW], audit=sections["audit"]))
    assert (
        page.index("VIOLATED") < page.index("## All attacks")
        and privacy_audit_section.TITLE in page.split("## How to read this")[1]
    )


def test_a_claim_about_other_neighbors_is_not_judged():
    section = privacy_audit.measure(
        planned(),
        design=COINS,
        score_TN=dict(loss=scores(4.0), lira=scores(0.0)),
        claim=CLAIM | dict(adjacency="replace_one"),
    )
    assert not section["violated"] and "audit with design.pairs=True" in privacy_audit_section.text(
        audit=section
    )
    pairs = canaries.make(num_examples=2000, seed=0, models=3, canaries=1000, pairs=True)
    score_TN = dict(loss=scores(4.0, pairs), lira=scores(0.0, pairs))
    assert privacy_audit.measure(
        planned(pairs), design=pairs, score_TN=score_TN, claim=CLAIM | dict(adjacency="replace_one")
    )["violated"]
    assert not privacy_audit.measure(planned(pairs), design=pairs, score_TN=score_TN, claim=CLAIM)[
        "violated"
    ]
    for changes, words in (
        (dict(unit="user"), "all rows of one 'user'"),
        (dict(sampling="shuffle", adjacency="zero_out"), "balls_in_bins"),
    ):
        section = privacy_audit.measure(
            planned(),
            design=COINS,
            score_TN=dict(loss=scores(4.0), lira=scores(0.0)),
            claim=CLAIM | changes,
        )
        assert not section["violated"] and words in privacy_audit_section.text(audit=section)


def test_an_unprivate_run_with_canaries_is_audited_end_to_end(tmp_path):
    config = configuration.complete(
        data=dict(name="digits", flat=True, canaries=dict(kind="mislabeled", count=400)),
        design=dict(name="canaries", models=4, population=0.2, targets=1),
        model=dict(name="mlp", widths=(128,)),
        learner=dict(epochs=40, learning_rate=3e-3),
        attacks=dict(threshold_loss=dict(name="threshold"), lira=dict(variance="pooled")),
        report=dict(draws=40, figures=False, audit=dict(guesses=(0.1,))),
        run=dict(chunk=4),
    )
    section = run.run(config, workdir_path=tmp_path)["audit"]
    assert section["coins"] == 400 and section["claim"] is None and section["bound"]["tests"] == 2
    assert section["bound"]["epsilon"] > 1.5 and section["bound"]["guesses"] == 80
    text = (tmp_path / "report" / "report.md").read_text()
    assert "no accountant claims an upper bound" in text and "on population rows" in text


@pytest.mark.slow
def test_a_watched_private_run_scores_updates_and_claims_its_epsilon(tmp_path):
    fields = dict(
        data=dict(name="digits", flat=True, canaries=dict(kind="mislabeled", count=60)),
        design=dict(name="canaries", models=2, population=0.8, targets=1),
        model=dict(name="mlp", widths=(8,)),
        report=dict(draws=40, figures=False, audit=dict(guesses=(0.1,))),
        run=dict(chunk=2),
    )
    learner = dict(
        epochs=2,
        batch_size=100,
        optimizer="sgd",
        gradient="private",
        privacy=dict(noise_multiplier=1.0),
        watch=True,
    )
    attacks = {
        name: dict(name="threshold", signal=name, sign=1)
        for name in ("update_alignment", "update_change")
    }
    with pytest.raises(
        ValueError, match=r"attack 'update_alignment' needs the updates .* learner.watch=True"
    ):
        run.run(
            configuration.complete(**fields, learner=learner | dict(watch=False), attacks=attacks),
            workdir_path=tmp_path / "a",
        )
    section = run.run(
        configuration.complete(**fields, learner=learner, attacks=attacks),
        workdir_path=tmp_path / "b",
    )["audit"]
    assert (
        set(section["attacks"]) == set(attacks)
        and section["claim"]["accountant"] == "pld"
        and section["claim"]["epsilon"] > 1
    )
    value_AN = np.load(tmp_path / "b" / "signal" / "update_alignment" / "00000.npy")
    assert (value_AN != 0).sum() == 60 and not section["violated"]


# --------------------------------------------------------------------------------
# one epsilon, at the promised delta
PROMISE = dict(
    epsilon=3.0,
    delta=1e-4,
    accountant="pld",
    adjacency="add_remove",
    sampling="poisson",
    unit="example",
    others={},
    refused=[],
    notes=[],
)
PROMISE |= dict(
    steps=200,
    expected_batch=64.0,
    clip_norm=0.5,
    noise_multiplier=1.1,
    method="bookkeeping",
    covers="one model",
)
PROMISE |= dict(
    not_covered=[
        "several models together",
        "readers of the seed: whoever knows it subtracts the noise",
    ]
)


def test_the_audit_is_at_the_promised_delta_unless_another_one_is_asked_for():
    assert (
        privacy_audit.settings({}, design=COINS, knows=KNOWS, level=0.95, promised=1e-4)["delta"]
        == 1e-4
    )
    assert (
        privacy_audit.settings(None, design=COINS, knows=KNOWS, level=0.95, promised=1e-4)["delta"]
        == 1e-4
    )
    assert (
        privacy_audit.settings(
            dict(delta=1e-6), design=COINS, knows=KNOWS, level=0.95, promised=1e-4
        )["delta"]
        == 1e-6
    )
    assert planned()["delta"] == privacy_audit.DELTA  # nothing is promised


def audited(claim, **fields):
    settings = privacy_audit.settings(fields, design=COINS, knows=KNOWS, level=0.95, promised=1e-4)
    return privacy_audit.measure(
        settings, design=COINS, score_TN=dict(loss=scores(0.0), lira=scores(0.0)), claim=claim
    )


def test_a_report_has_one_epsilon_and_says_where_an_audit_is_at_another_delta():
    """The first epsilon of the page is the promised one; at another delta the two are named as what
    they are.
    """
    report = dict(
        results=[],
        guarantee=PROMISE,
        audit=audited(PROMISE),
        about=dict(data="d", seed=0, learner=dict(name="backprop", plan="permutation")),
    )
    page = pages.report(report)
    assert page.index("**(3, 0.0001)-differentially private**") < page.index(
        "Claimed at delta 0.0001: epsilon at most 3."
    )
    assert "requested at delta" not in page and "1e-05" not in page
    other = audited(dict(PROMISE, epsilon=3.51, delta=1e-5), delta=1e-5)
    page = pages.report(report | dict(audit=other))
    assert page.index("**(3, 0.0001)-differentially private**") < page.index("3.51")
    assert (
        "This audit was requested at delta 1e-05, but the guarantee is stated at delta 0.0001, "
        "and epsilon depends on delta." in page
    )
    assert "At delta 1e-05 the accountant proves 3.51." in page


def test_an_audit_that_could_not_have_failed_says_so():
    """The ceiling is next to the claim: 1,000 coins and 100 guesses show at most about 2."""
    weak, strong = audited(PROMISE | dict(epsilon=8.0)), audited(PROMISE | dict(epsilon=1.0))
    ceiling = tables.epsilon(weak["bound"]["ceiling"])
    text = privacy_audit_section.text(audit=weak)
    assert (
        f"**This audit could at most have shown {ceiling}, so it could not have contradicted 8**"
        in text
    )
    text = privacy_audit_section.text(audit=strong)
    assert (
        "could not have contradicted" not in text
        and f"(the audit could have shown up to {ceiling})" in text
    )


def test_private_training_and_canaries_are_called_what_they_are():
    """DP-SGD with its sampling in place of a plan that was not used; an accuracy of canaries is not
    one of the task; the seed is public.
    """
    learner = dict(
        name="backprop",
        epochs=5,
        gradient="private",
        plan="permutation",
        privacy=dict(clip_norm=0.5, epsilon=3.0),
    )
    models = [dict(model=0, target=True, train_accuracy=0.9, validation_accuracy=0.017)]
    about = dict(data="d", seed=7, learner=learner, canaries=dict(kind="mislabeled", count=200))
    page = pages.report(dict(results=[], guarantee=PROMISE, about=about, models=models))
    assert (
        "| learner | backprop (epochs=5) |" in page
        and "permutation" not in page
        and "privacy=" not in page
    )
    assert (
        "| private training | DP-SGD, Poisson sampling, 200 steps, expected batch 64, clip norm "
        "0.5, noise multiplier 1.1 (of the" in page
    )
    assert (
        "1.7% on non-members (held-out mislabeled canaries)" in page
        and "Only the 200 canaries are scored" in page
    )
    assert "says nothing about the task" in page
    seed = "> **The guarantee holds only against parties who do not know the seed.** The seed is 7"
    assert page.index(seed) < page.index("The guarantee covers one model")
    assert target.settings(learner | dict(gradient="mean")).endswith(
        "privacy=(clip_norm=0.5, epsilon=3.0))"
    )


def test_a_caller_with_arrays_is_not_sent_to_a_design():
    with pytest.raises(
        ValueError, match=r"arrays do not say which rows those are\. Pass coin="
    ) as refusal:
        privacy_audit.settings(
            {},
            design=halves.make(num_examples=100, seed=0, models=4),
            knows=KNOWS,
            level=0.95,
            arrays=True,
        )
    assert "design.name" not in str(refusal.value)


def marked(rng, count=400, mu=1.666, share=0.5):
    """Arrays of one model: scores of exactly mu-Gaussian DP of canaries, and 50 other members."""
    coin = np.arange(count + 50) < count
    member = np.where(coin, rng.random(count + 50) < share, True)
    return dict(score=rng.normal(size=count + 50) + mu * member, member=member, coin=coin)


def test_arrays_with_coins_are_audited_through_the_api():
    results = mia_jax.audit(
        **marked(np.random.default_rng(0)),
        draws=40,
        report=dict(audit=dict(epsilon=3.0, method="rank_sum")),
    )
    section = results.report["audit"]
    assert section["violated"] and 3 < section["bound"]["epsilon"] < 8
    assert section["claim"]["epsilon"] == 3 and section["coins"] == 400
    assert "Scores of `threshold_score` about model 0 separate" in results.markdown
    assert [row["method"] for row in section["methods"]] == list(audit.METHODS)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: dict(a, coin=a["coin"][:9]), r"coin has shape \(9,\)"),
        (lambda a: dict(a, coin=np.zeros(450, bool)), "coin marks no example"),
        (lambda a: dict(a, coin=np.arange(450) // 3), r"coins decide about \[3\] examples"),
        (lambda a: dict(a, coin=np.arange(450) // 2), "did not pick exactly one"),
        (lambda a: dict(a, coin=np.append(a["coin"][:-1], np.inf)), "coin has inf in row 449"),
        (lambda a: dict(a, coin=np.append(a["coin"][:-1], np.nan)), "coin has nan in row 449"),
        (lambda a: dict(a, coin=a["coin"] / 2), "coin has 0.5 in row 0; it must hold flags"),
        (
            lambda a: marked(np.random.default_rng(0), share=0.7),
            r"of 400 canaries of model 0 are members, which independent fair coins do not give",
        ),
        (lambda a: marked(np.random.default_rng(0), count=8), "too few for any bound"),
    ],
)
def test_arrays_whose_coins_cannot_be_fair_are_refused(change, message):
    arrays = change(marked(np.random.default_rng(0)))
    with pytest.raises(ValueError, match=message):
        mia_jax.audit(**arrays, draws=40)


def test_a_claim_about_arrays_is_about_the_neighbors_of_their_coins():
    first = np.random.default_rng(0).random(200) < 0.5
    arrays = dict(score=np.arange(400.0), member=np.append(first, ~first))
    for coin, adjacency in (
        (np.ones(400, bool), "add_remove"),
        (np.tile(np.arange(200), 2), "replace_one"),
    ):
        design = supplied_arrays.build(arrays | dict(coin=coin)).design
        claim = privacy_audit.claim_about_arrays(dict(epsilon=3.0, delta=1e-5), design)
        assert claim == dict(epsilon=3.0, delta=1e-5, adjacency=adjacency)


def test_fixed_numbers_of_members_are_refused_as_coins():
    rng = np.random.default_rng(0)
    member = np.array([rng.permutation(200) < 100 for _ in range(4)])
    with pytest.raises(ValueError, match="exactly 100 of 200 canaries are members of each of 4"):
        mia_jax.audit(
            shadow_score=rng.normal(size=(4, 200)),
            shadow_member=member,
            coin=np.ones(200, bool),
            draws=40,
        )


def test_a_delta_too_large_for_the_canaries_is_refused_before_training():
    with pytest.raises(
        ValueError, match=r"report.audit.delta=0.01 is too large for 1,000 canaries"
    ):
        planned(delta=0.01)
    with pytest.raises(ValueError, match=r"report.audit.delta=0.01 is too large"):
        privacy_audit.settings({}, design=COINS, knows=KNOWS, level=0.95, promised=0.01)
    with pytest.raises(ValueError, match=r"report.audit.epsilon=2 is the claim about supplied"):
        planned(epsilon=2)
    few = canaries.make(num_examples=2000, seed=0, models=3, canaries=20)
    with pytest.raises(
        ValueError, match="20 canaries are too few for the methods sum and rank_sum"
    ):
        planned(few, method="sum")
    with pytest.raises(ValueError, match="20 canaries with 2 guesses are too few for any bound"):
        planned(few)


def test_every_method_is_shown_with_what_it_could_have_shown():
    claim = CLAIM | dict(epsilon=3.0)
    section = privacy_audit.measure(
        planned(attacks=("loss", "lira")),
        design=COINS,
        score_TN=dict(loss=scores(0.719), lira=scores(0.0)),
        claim=claim,
    )
    rows = {row["method"]: row for row in section["methods"]}
    assert list(rows) == list(audit.METHODS) and not section["violated"]
    for row in rows.values():
        assert row["corrected"] < row["epsilon"] < 3.5 and row["attack"] == "loss"
        assert 0 < row["ideal"] < 3 and row["ideal"] < row["ceiling"] and row["tests"] == 6
    assert rows["one_run"]["epsilon"] == section["bound"]["epsilon"]
    assert rows["rank_sum"]["epsilon"] > 1.5 * rows["one_run"]["epsilon"]
    text = privacy_audit_section.text(audit=section)
    assert "| `rank_sum` | " in text and "no limit" in text and "contradict the claim" not in text
    growing = section["growing"]
    assert growing["attack"] == "loss" and growing["models"] == [0, 1, 2]
    assert growing["epsilon"] == sorted(growing["epsilon"]) and "All runs together" in text
    # Two methods share the level.
    share, method = (0.27, 0.0)[growing["method"] == "rank_sum"], growing["method"]
    counts_R = [
        privacy_audit.statistics(scores(0.719)[t], COINS, t, share, method) for t in range(3)
    ]
    expected = audit_runs.running(counts_R, delta=1e-5, alpha=0.05 / 2, method=method)
    assert growing["epsilon"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("one_run", "is not the one that was accounted for."),
        ("fdp", "accounted for."),
        ("gdp", "accounted for, if its trade-off curve is a Gaussian's."),
        ("order_dp", "accounted for, if canaries are independent given the coins."),
        ("order", "a Gaussian's and canaries are independent given the coins."),
        ("rank_sum", "a Gaussian's and canaries are independent given the coins."),
        ("sum", "independent given the coins and their scores are normal."),
    ],
)
def test_a_violation_names_what_its_method_assumes(method, words):
    bound = dict(epsilon=4.0, attack="loss", model=0)
    text = privacy_audit_section.violation(dict(bound=bound, claim=CLAIM, method=method))
    assert text.endswith(words) and set(audit.METHODS) == set(privacy_audit.ASSUMES)


def test_a_ledger_that_differs_leaves_no_claim_and_says_why():
    section = privacy_audit.measure(
        planned(attacks=("loss",)),
        design=COINS,
        score_TN=dict(loss=scores(4.0)),
        refused=["noise_std: declared 1, ran 0"],
    )
    assert section["claim"] is None and not section["violated"]
    text = privacy_audit_section.text(audit=section)
    assert "not the one that was accounted for** (noise_std: declared 1, ran 0)" in text
    assert "no accountant claims" not in text


@pytest.mark.slow  # test_a_delta_too_large... guards the refusal
def test_a_promised_delta_too_large_for_the_canaries_is_refused_before_training():
    config = configuration.complete(
        data=dict(name="digits", flat=True, canaries=dict(kind="mislabeled", count=400)),
        design=dict(name="canaries", models=2, population=0.2, targets=1),
        model=dict(name="linear"),
        learner=dict(gradient="private", privacy=dict(delta=0.01)),
        attacks=dict(threshold_loss=dict(name="threshold")),
    )
    with pytest.raises(ValueError, match=r"report.audit.delta=0.01 is too large for 400 canaries"):
        build.build(config.to_dict() | dict(seed=0), seed=0)


def released(contradicted):
    rng, values = np.random.default_rng(0), {}
    inside_TC = rng.random((2, 50)) < 0.5
    z = rng.normal(size=(2, MECHANISM.steps, 50)) * (0.5 if contradicted else 1.0)
    z = z + (rng.random(z.shape) < MECHANISM.rate) * inside_TC[:, None]
    values = dict(release_sum=z.sum(1), release_square=(z**2).sum(1))
    values["release_lag"] = (z[:, 1:] * z[:, :-1]).sum(1)
    values["release_place"] = (z.reshape(2, -1, 4, 50).sum(1) ** 2).sum(1) / MECHANISM.epochs
    common = dict(size=1.0, moment_TC=values, inside_TC=inside_TC, level=0.95)
    return releases.measure({0: MECHANISM, 7: MECHANISM}, **common)


MECHANISM = Mechanism(
    sampling="poisson",
    rate=0.25,
    clip_norm=1.0,
    noise_multiplier=1.0,
    expected_batch=10.0,
    steps=40,
    epoch_steps=4,
)


def test_releases_that_contradict_the_mechanism_come_first():
    section = privacy_audit.measure(
        planned(attacks=("loss",)), design=COINS, score_TN=dict(loss=scores()), claim=CLAIM
    )
    for broken in (False, True):
        compared = released(broken)
        assert compared["contradicted"] is broken and compared["count"] == 10
        assert [row["name"] for row in compared["tests"]][:2] == ["noise", "fresh noise"]
        least = min(row["p_value"] for row in compared["tests"])
        assert compared["p_value"] == min(1.0, 10 * least)
        report = dict(results=[ROW], audit=section | dict(releases=compared))
        page = pages.report(report)
        assert "What training released" in page and "| fresh epochs |" in page
        assert ("RELEASES CONTRADICT THE MECHANISM: noise is 0.2" in page) is broken
        assert ("PRIVATE TRAINING IS BROKEN" in answer.first_line(report)) is broken
    nothing = releases.measure(
        {0: MECHANISM.after(1)},
        size=1.0,
        moment_TC=dict.fromkeys(dirac.MOMENTS, np.ones((1, 4))),
        inside_TC=np.ones((1, 4), bool),
        level=0.95,
    )
    text = privacy_audit_section.text(audit=section | dict(releases=nothing))
    assert "No comparison: the releases of 4 canaries in and 0 out" in text


def test_methods_that_exceed_the_claim_are_named():
    section = privacy_audit.measure(
        planned(), design=COINS, score_TN=dict(loss=scores(1.666), lira=scores()), claim=CLAIM
    )
    text = privacy_audit_section.text(audit=section)
    assert "`sum`, `rank_sum` contradict the claim of 1" in text
    assert "With more assumptions" not in text
    section = privacy_audit.measure(
        planned(attacks=("loss",)),
        design=COINS,
        score_TN=dict(loss=scores(1.666)),
        claim=dict(CLAIM, epsilon=4.0),
    )
    text = privacy_audit_section.text(audit=section)
    assert not section["violated"]
    assert "With more assumptions, `order`, `sum`, `rank_sum` contradict the claim: see" in text


@pytest.mark.slow
def test_all_methods_together_keep_the_level():
    """100 honest audits at their exact epsilon: corrected bounds exceed it at most 5 times."""
    wrong = 0
    for s in range(100):
        section = privacy_audit.measure(
            planned(attacks=("loss",)), design=COINS, score_TN=dict(loss=scores(0.719146, seed=s))
        )
        wrong += max(row["corrected"] for row in section["methods"]) > 3
        wrong += (section["growing"] or dict(epsilon=[0]))["epsilon"][-1] > 3
    assert wrong <= 10
