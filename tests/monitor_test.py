"""Monitor: its numbers are those of an audit, whichever way a model is asked; it continues, refuses
other data, and stops models within their limit in at most 5% of runs.
"""

import json
import os

import numpy as np
import pytest
from scipy import stats

import mia_jax
from mia_jax import monitor as module
from mia_jax.external import frameworks
from mia_jax.runtime import precision

N = 240


def data(seed=0, classes=3, n=N):
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, n), np.arange(n) < n // 2


def logits(y, member, epoch, *, seed=0, classes=3):
    """Answers whose margin on members grows with the epoch."""
    z = np.random.default_rng([seed, epoch]).normal(size=(len(y), classes))
    z[np.arange(len(y)), y] += 0.5 + 0.5 * epoch * member
    return z


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_an_epoch_has_the_numbers_of_an_audit_of_its_answers():
    y, member = data()
    monitor = mia_jax.Monitor(y=y, member=member, draws=60, seed=3, attacks="threshold_hinge, gap")
    leakage = monitor(2, logits(y, member, 2))
    results = mia_jax.audit(
        logits=logits(y, member, 2),
        labels=y,
        member=member,
        attacks=["threshold_hinge", "gap"],
        draws=60,
        seed=3,
    )
    assert [row["attack"] for row in monitor.rows] == ["threshold_hinge", "gap"]
    for row in monitor.rows:
        for metric in ("auc", "tpr@0.01"):
            audited = results.row(row["attack"], metric)
            for key, end in dict(value="", low="_low", high="_high").items():
                assert row[metric + end] == audited[key], (row["attack"], metric, key)
    auc = results.row("threshold_hinge", "auc")
    assert (leakage.auc, leakage.auc_low, leakage.auc_high) == tuple(
        auc[key] for key in ("value", "low", "high")
    )
    correct = logits(y, member, 2).argmax(1) == y
    assert leakage.member_accuracy == correct[member].mean()
    assert leakage.nonmember_accuracy == correct[~member].mean()


def test_answers_of_every_kind_give_the_same_numbers():
    torch = pytest.importorskip("torch", reason="pip install torch")
    import jax.numpy as jnp

    y, member = data()
    z = logits(y, member, 1).astype(np.float32)
    same = {
        "numpy": (y, z),
        "jax": (jnp.asarray(y), jnp.asarray(z)),
        "torch": (torch.tensor(y), torch.tensor(z, requires_grad=True)),
        "texts": (np.array(["ant", "bee", "cat"])[y], z),
        "one-hot": (np.eye(3)[y], z),
        "lists": (y.tolist(), z.tolist()),
    }
    made = {
        name: mia_jax.Monitor(y=labels, member=member, draws=40)(1, answers)
        for name, (labels, answers) in same.items()
    }
    assert len(set(made.values())) == 1, made
    probs = mia_jax.Monitor(y=y, member=member, draws=40)(1, softmax(z.astype(np.float64)))
    assert probs.auc == made["numpy"].auc


def test_losses_and_regressions():
    rng, member = np.random.default_rng(0), np.arange(N) < N // 2
    y = rng.normal(size=N)
    error = rng.normal(size=N) * np.where(member, 0.3, 1.0)
    by_loss = mia_jax.Monitor(member=member, draws=40)(1, loss=error**2)
    by_prediction = mia_jax.Monitor(y=y, member=member, draws=40)(1, (y + error)[:, None])
    assert by_loss.auc == by_prediction.auc > 0.7
    assert by_loss.member_accuracy is None and by_prediction.nonmember_accuracy is None


def test_other_epochs_are_not_measured_and_the_last_one_is():
    y, member = data()
    monitor = mia_jax.Monitor(y=y, member=member, every=3, epochs=7, draws=40)
    measured = [epoch for epoch in range(1, 8) if monitor(epoch, logits(y, member, epoch))]
    assert measured == [3, 6, 7] == [row["epoch"] for row in monitor.rows]


def refused(match, call, **fields):
    y, member = data()
    with pytest.raises(ValueError, match=match):
        call(mia_jax.Monitor(**(dict(y=y, member=member, draws=40) | fields)), y, member)


def asks(answers):
    return lambda monitor, y, member: monitor(1, answers(y, member))


@pytest.mark.parametrize(
    "match, call, fields",
    [
        (
            r"NaN or infinite numbers for 1 of 240 rows",
            asks(lambda y, m: np.where(np.arange(N)[:, None] == 7, np.nan, logits(y, m, 1))),
            {},
        ),
        (r"shape \(239, 3\) for 240 rows", asks(lambda y, m: logits(y, m, 1)[1:]), {}),
        (r"returns labels", asks(lambda y, m: y), {}),
        (r"rows do not sum to 1", asks(lambda y, m: np.full((N, 3), 0.2)), {}),
        (r"there is no attack 'threshold_los'", None, dict(attacks="threshold_los")),
        (r"'lira' cannot be run on the answers of one model", None, dict(attacks="lira")),
        (r"no metric 'aux'. Did you mean 'auc'", None, dict(limit="aux <= 0.6")),
        (r"the argument fprs=", None, dict(limit="tpr@0.2 <= 0.6")),
        (r"member=... is missing", None, dict(member=None)),
        (r"member says that all", None, dict(member=np.ones(N))),
        (r"member has shape \(4,\)", None, dict(member=[1, 0, 1, 0])),
        (r"draws=3 must be at least 40", None, dict(draws=3)),
        (r"epoch=1.5 must be a whole number", lambda m, y, _: m(1.5, y), {}),
        (r"pass y=", asks(lambda y, m: logits(y, m, 1)), dict(y=None)),
        (r"not both", lambda m, y, _: m(1), {}),
        (r"x=..., which was not passed", lambda m, y, _: m.keras(), {}),
        (r"the monitor has no folder", lambda m, y, _: m.save(), {}),
        (r"nothing to draw", lambda m, y, _: m.plot(), {}),
    ],
)
def test_what_cannot_be_used_is_a_sentence(match, call, fields):
    refused(match, call or asks(lambda y, m: logits(y, m, 1)), **fields)


def test_answers_that_change_their_form_are_refused_and_nothing_is_lost(tmp_path):
    y, member = data()
    monitor = mia_jax.Monitor(y=y, member=member, draws=40, folder=tmp_path)
    monitor(1, logits(y, member, 1))
    with pytest.raises(ValueError, match="look like probs, and those of earlier epochs like logit"):
        monitor(2, softmax(logits(y, member, 2)))
    assert [row["epoch"] for row in monitor.rows] == [1]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_monitor_with_a_folder_continues_and_other_data_is_refused(tmp_path):
    y, member = data()
    fields = dict(
        y=y, member=member, draws=40, limit="auc <= 0.6", attacks=("threshold_loss", "gap")
    )
    whole = mia_jax.Monitor(**fields)
    for epoch in (1, 2, 3):
        whole(epoch, logits(y, member, epoch))
    first = mia_jax.Monitor(**fields, folder=tmp_path / "m")
    first(1, logits(y, member, 1))
    first(2, logits(y, member, 2))
    with open(tmp_path / "m" / "metrics.jsonl", "a") as file:  # killed while it wrote epoch 3
        file.write('{"epoch": 3, "attack": "thre')
    second = mia_jax.Monitor(**fields, folder=tmp_path / "m")
    assert second.rows == first.rows and second.looks == 2
    again = second(2, logits(y, member, 2))  # from a checkpoint after epoch 1: no further look
    assert again.epoch == 2 and second.looks == 2
    second(3, logits(y, member, 3))
    assert second.rows == whole.rows
    for other in (dict(y=1 - y % 2), dict(member=~member), dict(seed=1), dict(limit=None)):
        with pytest.raises(ValueError, match=r"(?s)belongs to another config.*another folder="):
            mia_jax.Monitor(**(fields | other), folder=tmp_path / "m")


def test_a_training_that_goes_back_is_measured_again_as_further_looks():
    y, member = data()
    monitor = mia_jax.Monitor(y=y, member=member, draws=40, limit="auc <= 0.99")
    for epoch in (1, 2, 3):
        monitor(epoch, logits(y, member, epoch))
    monitor(2, logits(y, member, 2, seed=9))
    assert [(row["epoch"], row["look"]) for row in monitor.rows] == [(1, 1), (2, 4)]


def test_files_table_figure_and_trackers(tmp_path):
    y, member = data()
    kept = []

    class Mine:
        def log(self, step, values):
            kept.append((step, values))

        def close(self):
            kept.append("closed")

    monitor = mia_jax.Monitor(
        y=y, member=member, draws=40, limit="auc <= 0.6", folder=tmp_path / "m", tracker=Mine()
    )
    for epoch in (1, 5):
        monitor(epoch, logits(y, member, epoch))
    monitor.close()
    assert [step for step, *_ in kept] == [1, 5, "c"]
    assert kept[1][1]["threshold_loss/auc"] == monitor.rows[1]["auc"]
    text = (tmp_path / "m" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["auc"] for line in lines] == [row["auc"] for row in monitor.rows]
    header, names, *body = monitor.table().splitlines()
    assert "chosen before the training: 120 members, 120 non-members, 95% intervals" in header
    assert "AUC" in names and len(body) == 2 and body[1].endswith("stop")
    monitor.save()
    monitor.save(tmp_path / "copy")
    for folder in ("m", "copy"):
        there = {path.name for path in (tmp_path / folder).iterdir()}
        assert there == {"config.json", "metrics.jsonl", "monitor.txt", "monitor.png"}
    copied = mia_jax.Monitor(
        y=y, member=member, draws=40, limit="auc <= 0.6", folder=tmp_path / "copy"
    )
    assert copied.rows == monitor.rows


def test_torch_is_asked_in_evaluation_mode_and_put_back(tmp_path):
    torch = pytest.importorskip("torch", reason="pip install torch")
    y, member = data()
    x = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5))
    net.train()
    monitor = mia_jax.Monitor(x, y, member, draws=40)
    state = torch.random.get_rng_state()
    leakage = monitor.torch(net)(1)
    assert net.training and net[1].training and net[0].weight.grad is None
    assert torch.equal(torch.random.get_rng_state(), state), "the training's random numbers moved"
    answers = frameworks.predictor(net).answer(x)
    assert leakage == mia_jax.Monitor(y=y, member=member, draws=40)(1, answers)


def test_flax_is_asked_with_the_parameters_of_the_epoch():
    import jax
    import jax.numpy as jnp

    y, member = data()
    x = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    apply = jax.jit(lambda params, x: x @ params["w"] + params["b"])  # [B,C] + [C]: ranks differ
    params = dict(w=jnp.ones((4, 3)), b=jnp.arange(3.0))
    monitor = mia_jax.Monitor(x, y, member, draws=40, every=2, batch_size=100)
    after = monitor.flax(apply)
    assert after(1, params) is None
    expected = mia_jax.Monitor(y=y, member=member, draws=40)(2, x @ params["w"] + params["b"][None])
    assert after(2, params).auc == pytest.approx(expected.auc, abs=1e-9)


def test_the_keras_callback_stops_a_training_that_exceeds_the_limit():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="pip install keras, with KERAS_BACKEND=jax")
    rng = np.random.default_rng(0)
    n = 120
    y, member = rng.integers(0, 2, n), np.arange(n) < n // 2
    x = rng.normal(size=(n, 200)).astype(np.float32)  # noise that a net can only learn by heart
    net = keras.Sequential([keras.Input((200,)), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(0.05), loss)
    monitor = mia_jax.Monitor(x, y, member, epochs=30, limit="auc <= 0.6", draws=40)
    fields = dict(epochs=30, verbose=0, callbacks=[monitor.keras()], batch_size=60)
    with precision.as_the_user():  # Keras promotes ranks
        history = net.fit(x[member], y[member], **fields)
    ran = len(history.epoch)
    assert monitor.stop and ran < 30
    assert [row["epoch"] for row in monitor.rows] == list(range(1, ran + 1))
    assert [row["stop"] for row in monitor.rows] == [False] * (ran - 1) + [True]


def test_the_shares_of_all_looks_sum_to_one_at_most():
    assert sum(module.share(look, 7) for look in range(1, 100)) == pytest.approx(1)
    total = sum(module.share(look, None) for look in range(1, 100_000))
    assert 0.999 < total <= 1


def test_a_stop_needs_the_lower_end_at_the_level_of_its_look():
    """One look of a plan of 4 with two limits is a test of its own at level 1 - 0.05 / 8."""
    rng, member = np.random.default_rng(1), np.arange(600) < 300
    loss = rng.normal(size=600) - 0.6 * member
    fields = dict(member=member, draws=100, fprs=(0.1,))
    stricter = mia_jax.Monitor(**fields, level=1 - 0.05 / 8)
    low = stricter(1, loss=loss).auc_low
    for most, stops in ((low - 0.001, True), (low + 0.001, False)):
        limits = [f"auc <= {most:.6f}", "tpr@0.1 <= 1"]
        monitor = mia_jax.Monitor(**fields, limit=limits, epochs=4)
        assert monitor(1, loss=loss).stop is stops
        assert monitor.rows[0]["auc_low"] > low, "the interval shown is that of the level"


def test_after_the_plan_no_epoch_stops_and_that_is_said():
    y, member = data()
    monitor = mia_jax.Monitor(y=y, member=member, draws=40, limit="auc <= 0.5", epochs=1)
    monitor(1, logits(y, member, 0))
    with pytest.warns(UserWarning, match="epoch 2 is beyond epochs=1"):
        assert not monitor(2, logits(y, member, 9)).stop
    monitor(3, logits(y, member, 9))


def stopped(runs, *, looks, n, limit, shift, seed, planned=True):
    """The number of simulated trainings that are stopped; every epoch's losses are new draws of a
    model whose true value is the same.
    """
    count, member = 0, np.arange(2 * n) < n
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        monitor = mia_jax.Monitor(
            member=member, limit=limit, epochs=looks if planned else None, draws=40, seed=run
        )
        for epoch in range(1, looks + 1):
            monitor(epoch, loss=9 - rng.normal(size=2 * n) - shift * member)
            if monitor.stop:
                count += 1
                break
    return count


def binormal(auc):
    """The shift of members at which the true AUC is this."""
    return float(np.sqrt(2) * stats.norm.ppf(auc))


def within(count, runs, most=0.05):
    """Whether a count of stops is what a probability of `most` explains (99.9%)."""
    return stats.binom.sf(count - 1, runs, most) > 0.001


def test_a_model_at_its_limit_is_seldom_stopped_and_one_above_it_is():
    """A test of every epoch's interval by itself would stop about half of these runs."""
    at = dict(looks=12, n=40, limit="auc <= 0.6", seed=0)
    assert within(stopped(12, shift=binormal(0.6), **at), 12, most=0.05)
    assert stopped(4, shift=binormal(0.95), **at) == 4


@pytest.mark.slow
@pytest.mark.parametrize("planned", [True, False])
@pytest.mark.parametrize(
    "limit, shift, n",
    [
        ("auc <= 0.6", binormal(0.6), 100),
        ("auc <= 0.5", 0.0, 30),
        ("tpr@1% <= 10%", stats.norm.ppf(0.99) - stats.norm.isf(0.1), 150),  # few false positives
        ("tpr@1% <= 10%", stats.norm.ppf(0.99) - stats.norm.isf(0.1), 600),
    ],
)
def test_a_model_at_its_limit_is_stopped_in_at_most_5_percent_of_runs(limit, shift, n, planned):
    runs = 120
    count = stopped(runs, looks=15, n=n, limit=limit, shift=shift, seed=1, planned=planned)
    print(f"{limit}, n={n}, planned={planned}: {count} of {runs} runs were stopped")
    assert within(count, runs), f"{count} of {runs} runs were stopped"
