"""Models that a user's fit trains: halves, seeds, files, and what happens when one fails."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import threading

import joblib
import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from mia_jax.external import fleet, labels, models
from mia_jax.external.models import Subject

ROOT = pathlib.Path(__file__).parents[2]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2))
Y = (X[:, 0] > 0).astype(int)


class Counting:
    """fit(x, y, seed) of nearest class means, which counts its calls and fails when asked to."""

    def __init__(self, fails=()):
        self.fails, self.seeds = set(fails), []

    def __call__(self, x, y, seed):
        self.seeds.append(seed)
        if len(self.seeds) in self.fails:
            raise RuntimeError(f"call {len(self.seeds)} ran out of luck")
        mean = np.stack([x[y == c].mean(0) for c in (0, 1)])
        noise = np.random.default_rng(seed).normal(size=2)
        return lambda x: -((x[:, None] - mean) ** 2).sum(-1) + noise


def audit(fit, folder=None, *, seed=0, x=X, y=Y, **more):
    subject = Subject(fit=fit, x=x, y=y, **dict(models=8, population=0.0) | more)
    return models.arrays_of(subject, folder=folder, seed=seed)


def test_halves_are_complementary_and_depend_on_the_seed_and_the_pair_only():
    none = np.zeros(41, bool)
    y = labels.read(np.arange(41) % 2)
    draw = lambda models, seed=0: fleet.members(  # noqa: E731
        models, none, seed=seed, labels=y, argument="models"
    )[0]
    member_MN = draw(8)
    assert np.array_equal(member_MN[::2], ~member_MN[1::2])
    assert set(member_MN.sum(1).tolist()) == {20, 21}
    assert np.array_equal(draw(4), member_MN[:4]) and not np.array_equal(draw(8, 1), member_MN)


def test_every_label_of_two_rows_or_more_is_in_both_halves():
    y = labels.read([*range(10), *range(10), 10, *[11] * 19])
    member_MN, notes = fleet.members(16, np.zeros(40, bool), seed=0, labels=y, argument="models")
    for member_N in member_MN:
        assert set(range(12)) - set(y.code_N[member_N]) <= {10}
    assert np.array_equal(member_MN[::2], ~member_MN[1::2])
    assert "pairs of halves are drawn label by label" in notes[0]


def test_population_rows_are_in_no_half():
    aside = np.arange(40) < 7
    y = labels.read(Y)
    member_MN, _ = fleet.members(4, aside, seed=0, labels=y, argument="models")
    assert not member_MN[:, aside].any() and member_MN[:, ~aside].any(0).all()


@pytest.mark.parametrize("number", [0, 1, 7])
def test_an_odd_number_of_models_is_refused(number):
    with pytest.raises(ValueError, match=rf"shadows={number} must be even and at least 2.* use sh"):
        fleet.members(
            number, np.zeros(9, bool), seed=0, labels=labels.read([0, 1, 2] * 3), argument="shadows"
        )


def test_seeds_are_whole_numbers_that_differ_and_stay():
    seeds = fleet.model_seeds(3, 500)
    assert len(set(seeds)) == 500 and all(0 <= s < 2**31 for s in seeds)
    assert fleet.model_seeds(3, 4) == seeds[:4] and fleet.model_seeds(4, 4) != seeds[:4]
    fit = Counting()
    audit(fit)
    expected = fleet.model_seeds(0, 8)
    assert fit.seeds == [expected[0], *expected]  # the first is fitted twice


def test_each_model_is_trained_on_its_half_and_asked_about_all_rows():
    made = audit(Counting()).arrays
    assert made["shadow_logits"].shape == (8, 40, 2) and made["labels"].tolist() == Y.tolist()
    again = Counting()(X[made["shadow_member"][3]], Y[made["shadow_member"][3]], 0)
    difference = made["shadow_logits"][3] - again(X)
    assert np.allclose(difference, difference[0])  # the noise of the seed alone


def test_a_fit_that_follows_its_seed_is_not_remarked_upon():
    assert not any("seed alone" in note for note in audit(Counting()).notes)


def test_a_fit_that_ignores_its_seed_is_noticed():
    rng = np.random.default_rng(0)

    def fit(x, y, seed):
        return Counting()(x, y, int(rng.integers(100)))

    (note,) = [note for note in audit(fit).notes if "seed alone" in note]
    assert "answers of two calls with the same rows and seed differ by up to" in note
    assert "the audit cannot be repeated exactly" in note


def test_a_model_that_fails_is_named_and_the_others_are_kept(tmp_path):
    first = Counting(fails=[7])  # the first model is fitted twice, so this is model 5
    message = (
        r"fit failed for model 5 \(20 rows, seed \d+\): RuntimeError: call 7 ran out of luck\. "
        "The answers of 7 of 8 models are on disk"
    )
    with pytest.raises(ValueError, match=message):
        audit(first, tmp_path / "w")
    second = Counting()
    made = audit(second, tmp_path / "w")
    assert second.seeds == [fleet.model_seeds(0, 8)[5]]
    assert np.array_equal(made.arrays["shadow_logits"], audit(Counting()).arrays["shadow_logits"])
    assert "The answers of 7 of the 8 models are of an earlier call." in made.notes


def test_without_a_folder_what_was_computed_is_kept_when_something_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="answers are kept: folder='") as failure:
        audit(Counting(fails=[7]))
    (folder,) = tmp_path.iterdir()
    assert f"folder={str(folder)!r} continues" in str(failure.value)
    fit = Counting()
    audit(fit, folder)
    assert len(fit.seeds) == 1
    with pytest.raises(ValueError, match="fit failed for model 0"):
        audit(Counting(fails=[1]))
    audit(Counting())
    assert list(tmp_path.iterdir()) == [folder]  # nothing remains of what ended, or never began


def test_two_failures_end_the_work():
    fit = Counting(fails=[3, 4, 5, 6, 7])
    with pytest.raises(ValueError, match=r"model 1 .*model 2 .*The answers of 1 of 8 models"):
        audit(fit)
    assert len(fit.seeds) == 4


def test_a_folder_of_other_data_is_refused(tmp_path):
    audit(Counting(), tmp_path)
    changed = X.copy()
    changed[3, 1] += 1
    for other in (
        dict(x=changed),
        dict(y=1 - Y),
        dict(seed=1),
        dict(models=6),
        dict(population=0.1),
        dict(fit=lambda x, y, seed: None),
    ):
        with pytest.raises(ValueError, match="trained on other rows, labels or settings"):
            audit(**dict(fit=Counting(), folder=tmp_path) | other)


def test_a_folder_in_which_nothing_was_made_is_free(tmp_path):
    with pytest.raises(ValueError, match="fit failed for model 0"):
        audit(Counting(fails=[1]), tmp_path)
    audit(Counting(), tmp_path, seed=1)


def test_answers_of_another_model_are_refused(tmp_path):
    audit(Counting(), tmp_path)
    answers = tmp_path / "models" / "answers"
    (answers / "00002.npz").write_bytes((answers / "00003.npz").read_bytes())
    with pytest.raises(ValueError, match=r"belongs to another place \(model: 3 in the file, 2 exp"):
        audit(Counting(), tmp_path)
    (answers / "00002.npz").unlink()
    fit = Counting()
    audit(fit, tmp_path)
    assert fit.seeds == [fleet.model_seeds(0, 8)[2]]


KILLED = """
    import sys, time
    import numpy as np
    from mia_jax.external import models
    from tests.external import fleet_test

    calls = []
    def fit(x, y, seed):
        calls.append(seed)
        print(len(calls), flush=True)
        time.sleep({seconds})
        return fleet_test.Counting()(x, y, seed)

    fleet_test.audit(fit, __import__("pathlib").Path(sys.argv[1]))
"""


def test_a_call_that_was_interrupted_continues(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    class Interrupted(Counting):
        def __call__(self, x, y, seed):
            if len(self.seeds) == 4:
                raise KeyboardInterrupt
            return super().__call__(x, y, seed)

    with pytest.raises(KeyboardInterrupt):
        audit(Interrupted())
    (folder,) = tmp_path.iterdir()
    assert (
        f"The models' answers are kept: folder={str(folder)!r} continues" in capsys.readouterr().err
    )
    shutil.copytree(folder, tmp_path / "w")
    fit = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        audit(fit, tmp_path / "w")
    assert fit.seeds == fleet.model_seeds(0, 8)[3:7]


@pytest.mark.slow
def test_a_call_that_was_killed_continues(tmp_path):
    environment = os.environ | dict(PYTHONPATH=str(ROOT), JAX_PLATFORMS="cpu")

    def started(seconds):
        code = textwrap.dedent(KILLED).format(seconds=seconds)
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    process = started(0.2)
    while process.stdout.readline().strip() != "5":
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = len(list((tmp_path / "models" / "answers").glob("*.npz")))
    assert kept == 3  # the first model is fitted twice, and the fifth call was under way
    out, _ = started(0).communicate(timeout=120)
    assert len(out.split()) == 8 - kept
    with pytest.raises(ValueError, match="other rows, labels or settings"):
        audit(Counting(), tmp_path)  # its fit has another name


def test_a_long_wait_without_a_folder_is_announced(tmp_path, capsys, monkeypatch):
    clock = iter(np.arange(0, 1e6, 15.0))
    monkeypatch.setattr(fleet, "time", type("Clock", (), dict(monotonic=lambda: next(clock))))
    audit(Counting())
    messages = capsys.readouterr().err
    assert "fit takes 15 s for a model: about 2 min for the other 7. With folder=" in messages
    audit(Counting(), tmp_path)
    assert "With folder=" not in capsys.readouterr().err


def test_threads_and_processes_give_the_same_answers(tmp_path):
    expected = audit(Counting()).arrays["shadow_logits"]
    with joblib.parallel_config(backend="threading"):
        threads = audit(Counting(), n_jobs=2).arrays["shadow_logits"]
    assert np.array_equal(threads, expected)


@pytest.mark.slow
def test_processes_give_the_same_answers():
    expected = audit(Counting()).arrays["shadow_logits"]
    assert np.array_equal(audit(Counting(), n_jobs=2).arrays["shadow_logits"], expected)


def test_a_fit_that_no_process_can_be_sent_is_explained():
    lock = threading.Lock()

    def fit(x, y, seed):
        with lock:
            return Counting()(x, y, seed)

    with pytest.raises(ValueError, match=r"n_jobs=2: fit, x or y cannot be sent .*use threads"):
        audit(fit, n_jobs=2)
    with joblib.parallel_config(backend="threading"):
        audit(fit, n_jobs=2)


def test_what_fit_returns_must_be_a_model():
    with pytest.raises(
        ValueError, match="fit returned None for model 0; it must return the trained"
    ):
        audit(lambda x, y, seed: None)
    with pytest.raises(ValueError, match="model 0 is a list and must be a function"):
        audit(lambda x, y, seed: [1])
    with pytest.raises(ValueError, match="model 0 returns labels"):
        audit(lambda x, y, seed: lambda x: np.zeros(len(x), int))


def test_a_half_without_a_label_that_the_model_needs_is_one_sentence():
    y = np.array(["a", "b"] * 19 + ["c", "d"])  # one row of c and one of d: never in both halves

    def fit(x, y, seed):
        return Counting()(x, (y == "a").astype(int), seed)

    with pytest.raises(ValueError, match=r"Its training rows have none of label '.'"):
        audit(fit, y=y)


def test_rows_that_are_changed_in_place_are_noticed():
    def fit(x, y, seed):
        X[0] += 1
        return Counting()(x, y, seed)

    before = X[0].copy()
    try:
        with pytest.raises(ValueError, match="fit changed x in place"):
            audit(fit)
    finally:
        X[0] = before


def test_a_recipe_is_known_by_its_name_or_settings_without_addresses():
    name = fleet.identity(test_two_failures_end_the_work)["name"]
    assert name == "tests.external.fleet_test.test_two_failures_end_the_work"

    class Estimator:
        def get_params(self):
            return dict(b=object(), a=1)

    assert fleet.identity(Estimator()) == fleet.identity(Estimator())
    settings = {key: value for key, value in fleet.identity(Estimator()).items() if key != "name"}
    assert settings == dict(a="1", b="<object object>")


def test_an_estimator_with_other_settings_is_another_recipe(tmp_path):
    audit(DecisionTreeClassifier(max_depth=2), tmp_path)
    with pytest.raises(
        ValueError, match=r"\n  fit\.max_depth: '2' on disk, '3' in this run\nIts mod"
    ):
        audit(DecisionTreeClassifier(max_depth=3), tmp_path)
