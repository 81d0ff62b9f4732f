"""The command line: what is typed is obeyed or refused in one sentence, whatever it is, and never a
traceback.
"""

import ast
import contextlib
import importlib
import io
import pathlib
import random
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from mia_jax import configuration
from mia_jax.configuration import command_line, fields, listing
from mia_jax.pipeline import build
from mia_jax.pipeline import run as pipeline_run
from mia_jax.runtime import jobs
from tests import sources

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARY_WORDS = (
    "NoneType",
    "object is not",
    "unhashable",
    "malformed node",
    "<class",
    "Traceback",
    "not supported between",
)
LIBRARY_WORDS += ("ConfigDict", "literal", "KeyError", "not in what was typed")
WEIRD = [
    "",
    " ",
    "0",
    "1",
    "-1",
    "1.5",
    "1e3",
    "1e30",
    "10**30",
    "inf",
    "nan",
    "none",
    "None",
    "true",
    "False",
    "abc",
    "%s",
    "(1,2,3)",
    "[]",
]
WEIRD += [
    "()",
    "{}",
    "1,2",
    "a,b",
    "{'a': 1}",
    "{a}",
    "((((",
    "'",
    '"',
    "x=y",
    ",",
    "/",
    "~",
    "loss",
    "lira",
    "mlp",
    "identity,flip",
]
WEIRD += [
    "class,column:sex",
    "0,0.01",
    "64,64",
    "é",
    "$x^{$",
    "9" * 40,
    "0x10",
    "1_000",
    "--",
    "column:a:b",
    "class & class & class",
]
WEIRD += ["noise_robustness:samples=4,sigma=.05", "loss:a=1", ":", "nothing.here"]
ABSENT = [
    "learner.privacy.epsilon",
    "learner.stop.patience",
    "data.canaries.count",
    "report.audit.delta",
    "report.groups.a",
    "x",
    "a.b.c",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small files that configs read."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    y, member = np.arange(60) % 3, np.arange(60) % 2 < 1
    np.savez(folder / "mine.npz", loss=rng.random(60), labels=y, member=member)
    np.savez(folder / "data.npz", x=rng.normal(size=(60, 4)).astype(np.float32), y=y)
    np.savez(folder / "target.npz", loss=rng.random(60), member=member)
    (folder / "table.csv").write_text(
        "age,sex,label\n" + "".join(f"{20 + i % 7},{i % 2},{'abc'[i % 3]}\n" for i in range(60))
    )
    return folder


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    """launch.py as a module, where nothing is trained: `run(words)` gives (the prepared audits or
    None, what stderr says).
    """
    patch = pytest.MonkeyPatch()
    module = importlib.import_module("mia_jax.__main__")
    patch.setattr(module, "set_compile_cache", lambda folder: None)
    patch.setattr(jobs.Pause, "listen", lambda self: None)
    patch.chdir(ROOT)
    results = []

    def stub(config, **options):
        plain = pipeline_run.plain(config)
        seeds = pipeline_run.checked_seeds(plain.pop("seed"))
        pipeline_run.check_stage_names(options["stages_wanted"])
        results.append(
            (
                config,
                build.build_supplied(plain, seed=seeds[0])
                if "scores" in plain
                else build.build(plain, seed=seeds[0]),
            )
        )

    patch.setattr(pipeline_run, "run", stub)
    workdir = tmp_path_factory.mktemp("work")

    def run(*words):
        results.clear(), module.GIVEN.clear()
        module.flags.FLAGS.unparse_flags()
        for name in (
            "config",
            "workdir",
            "attacks",
            "list",
            "stages",
            "grid",
            "summary",
            "debug",
            "extend",
            "task",
        ):
            module.flags.FLAGS[name].unparse()
        argv = ["launch.py", *words]
        argv += [f"--workdir={workdir / 'w'}"] * (not any("--workdir" in w for w in words)) + [
            "--stages=train"
        ] * ("--stages" not in str(words))
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.MonkeyPatch.context() as argument,
        ):
            argument.setattr(sys, "argv", argv)
            try:
                module.guarded(module.main, module.guarded(module.parse, argv))
            except SystemExit as end:
                assert end.code == 1, err.getvalue()
                results.clear()
        return (results[0] if results else None), err.getvalue(), out.getvalue()

    yield run
    patch.undo()


def leaves(tree, path=()):
    """Every dotted field of a config."""
    for name, value in tree.items():
        yield ".".join((*path, name))
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))


def at(tree, path):
    """The value of a dotted field, None where there is none."""
    for part in path.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def plausible(value, rng):
    """Another value of the same type, as it is typed."""
    if isinstance(value, bool):
        return rng.choice(("true", "false", "0", "1"))
    if isinstance(value, int | float):
        return rng.choice(
            ("1", "2", "4", "1e1") if isinstance(value, int) else ("0.1", "0.5", "1e-3", "1")
        )
    if isinstance(value, tuple):
        return listing.shown(value) if value else rng.choice(("", "()", "loss", "1,2"))
    return str(value) if value is not None else rng.choice(("none", "1", "0.5", "abc", "1e1"))


def configs(files):
    """Config files with arguments that make their runs small."""
    return [
        "configs/quickstart.py:models=4,epochs=2",
        f"configs/scores.py:path={files / 'mine.npz'}",
        f"configs/your_target.py:data={files / 'data.npz'},signals={files / 'target.npz'},"
        "signal=loss,models=4,epochs=1",
        f"configs/tabular.py:path={files / 'table.csv'},label=label,models=4,epochs=1",
        "configs/zoo/xor.py:examples=60,models=4,epochs=2",
        "configs/zoo/cross_validation.py:folds=3,epochs=1",
        f"configs/zoo/siamese.py:path={files / 'data.npz'},members=30,epochs=1",
    ]


def fuzzed(seed, files):
    """Random words after launch.py: a config with random arguments, fields with weird values or
    another's value, attacks, other flags.
    """
    rng = random.Random(seed)
    config = rng.choice(configs(files))
    path, _, argument = config.partition(":")
    tree = command_line.config_of(path, argument).to_dict()
    names = [*leaves(tree), *ABSENT]
    words = []
    for name in rng.choices(names, k=rng.choice((1, 1, 1, 2, 3))):
        words.append(
            f"--config.{name}="
            f"{plausible(at(tree, name), rng) if rng.random() < 0.5 else rng.choice(WEIRD)}"
        )
    if rng.random() < 0.15:
        words.append(
            "--attacks="
            f"{rng.choice(['+rmia', '-gap', 'lira', '+', '-', 'gap,+rmia', '+gap', *WEIRD])}"
        )
    if rng.random() < 0.15:
        argument = rng.choice(["quick", "models", "epochs", "full", "x", ""])
        config += f",{argument}{rng.choice(['', '='])}{rng.choice(WEIRD)}"
    if rng.random() < 0.05:
        words.append(
            "--"
            f"{rng.choice(['seed', 'epochs', 'stages', 'task', 'x', 'noconfig.learner', 'config'])}"
            f"={rng.choice(WEIRD)}"
        )
    words.insert(rng.randrange(len(words) + 1), f"--config={config}")
    return words


def check_sentence(stderr, words):
    """An error is one message without the words of a library."""
    assert "error: " in stderr, (words, stderr)
    text = stderr[stderr.index("error: ") :]
    for word in LIBRARY_WORDS:
        assert word not in text, (words, text)
    assert len(text) > 20 and len(text.splitlines()) <= 20, (words, text)


@contextlib.contextmanager
def at_most(seconds):
    """A hang is an error."""

    def late(*_):
        raise AssertionError(f"more than {seconds} s")

    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def check_obeyed(words, config):
    """What was typed is what the config holds, read back by the rules of its type."""
    tree = config.to_dict()
    typed = dict(
        re.match(r"--config\.([^=]+)=(.*)", word).groups()
        for word in words
        if word.startswith("--config.")
    )
    for name, text in typed.items():
        value = at(tree, name)
        if isinstance(value, tuple):
            assert [str(v) for v in value] == fields.split(text) or [float(v) for v in value] == [
                float(t) for t in fields.split(text)
            ], (name, text)
        elif isinstance(value, bool):
            assert value == (text.lower() in fields.TRUE), (name, text)
        elif isinstance(value, int | float):
            assert value == float(text), (name, text)
        elif value is None:
            assert text.strip().lower() == "none", (name, text)
        elif isinstance(value, str):
            assert value == text or name.startswith("attacks"), (name, text)


@pytest.mark.parametrize(
    "part", [0, 1, 2, *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 6))]
)
def test_whatever_is_typed_is_obeyed_or_refused_in_a_sentence(part, files, launcher):
    """300 random command lines up to the training: no traceback, no library's words, no hang, and
    what is accepted is what was typed.
    """
    accepted = 0
    for seed in range(50 * part, 50 * part + 50):
        words = fuzzed(seed, files)
        with at_most(60):
            config, stderr, _ = launcher(*words)
        if config is None:
            check_sentence(stderr, words)
        else:
            accepted += 1
            if len({w.split("=")[0] for w in words}) == len(words):
                check_obeyed(words, config[0])
    assert accepted >= 2  # the words are not all nonsense


QUICK = "--config=configs/quickstart.py:models=4,epochs=1"
REFUSED = {
    "a field": (
        ["--config.learner.lr=.1"],
        r"--config.learner.lr: learner .*no field 'lr'. Did you mean 'learning_rate'\? Fields: "
        r"name, gradient",
    ),
    "a field of an attack": (
        ["--config.attacks.lira.varianze=x"],
        "attacks.lira .*no field 'varianze'. Did you mean 'variance'",
    ),
    "a field of privacy": (
        ["--config.learner.gradient=private", "--config.learner.privacy.epsilom=1"],
        "learner.privacy has no field 'epsilom'. Did you mean 'epsilon'.* Fields: clip_norm",
    ),
    "a field of a rule": (
        ["--config.learner.stop.patienze=1"],
        "learner.stop has no field 'patienze'. Did you mean 'patience'",
    ),
    "a field of an audit": (
        ["--config.report.audit.gueses=1"],
        "report.audit has no field 'gueses'. Did you mean 'guesses'",
    ),
    "a field of an objective": (
        ["--config.learner.objective.smoothing=1"],
        "no field 'smoothing'. Did you mean 'label_smoothing'",
    ),
    "a section": (["--config.lerner.epochs=1"], "no section 'lerner'. Did you mean 'learner'"),
    "nothing": (["--config.nothing.here=True"], "no section 'nothing'. Sections: seed, data"),
    "a field without its section": (["--config.epochs=3"], "Did you mean --config.learner.epochs"),
    "an attack that is not there": (
        ["--config.attacks.rmia.name=rmia"],
        "no attack 'rmia'.*--attacks=[+]rmia adds an attack",
    ),
    "attacks as a word": (["--config.attacks=lira"], "--attacks=lira,rmia runs only these"),
    "a section as a word": (
        ["--config.model=mlp"],
        "model is a section.*--config.model.name chooses among",
    ),
    "text for a number": (
        ["--config.data.examples=many"],
        "--config.data.examples=many: it must be a whole number or none",
    ),
    "a fraction": (
        ["--config.learner.batch_size=1.5"],
        "--config.learner.batch_size=1.5: it must be a whole number",
    ),
    "nothing for a number": (
        ["--config.learner.epochs="],
        "--config.learner.epochs=: it must be a whole number",
    ),
    "words for widths": (
        ["--config.model.widths=abc"],
        "--config.model.widths=abc: it must be a list of whole numbers such as 1,2",
    ),
    "an infinite rate": (["--config.report.fprs=inf"], "--config.report.fprs=inf: .*finite"),
    "a list of draws": (
        ["--config.report.draws=(1,2,3)"],
        "--config.report.draws=.*it must be a whole number",
    ),
    "a number for slices": (["--config.report.slices=0"], "slices: '0'"),
    "a number for a rule": (
        ["--config.learner.stop=-1"],
        "--config.learner.stop=-1: it must be a mapping",
    ),
    "more epochs than are counted": (
        ["--config.learner.epochs=1e9"],
        "--config.learner.epochs=1,000,000,000 of .* steps; a model takes at most",
    ),
    "more than 64 bits": (["--config.learner.epochs=10" + "0" * 30], "larger than 64 bits"),
    "more models than fit": (
        ["--config.design.models=1e12"],
        "GiB of memory, and this machine has",
    ),
    "images of flat rows": (
        ["--config.model.name=small_cnn"],
        "cannot take the examples .*--config.data.flat=False gives images",
    ),
    "epsilon alone": (
        ["--config.learner.privacy.epsilon=3"],
        "Add --config.learner.gradient=private",
    ),
    "a typed field that the choice lacks": (
        ["--config.model.name=fc", "--config.model.widths=3"],
        r"model \(fc\) has no field 'widths'",
    ),
    "an attack nobody knows": (["--attacks=+lyra"], "no attack 'lyra'. Did you mean 'lira'"),
    "an attack taken away twice": (["--attacks=-rmia"], "no attack 'rmia' to remove"),
    "an attack added twice": (["--attacks=+gap"], "'gap' is there already"),
    "signs and none": (["--attacks=+rmia,gap"], "either every name has"),
    "a flag for a field": (["--seed=1"], "Did you mean --config.seed"),
    "another": (["--learning-rate=1"], "Did you mean --config.learner.learning_rate"),
    "a list of nothing": (["--list=atacks"], "Did you mean 'attacks'"),
    "an odd fleet, quick": (
        ["--config=configs/quickstart.py:quick,models=15"],
        "models=15: halves trains complementary pairs",
    ),
    "an argument twice": (
        ["--config=configs/quickstart.py:models=4,models=6"],
        "models is given twice",
    ),
    "an argument that does nothing": (
        ["--config=configs/dp_fashion_mnist.py:private=false,epsilon=4"],
        "epsilon=4.0 would have no effect",
    ),
    "a workdir that is a file": (["--workdir=README.md/w"], "README.md is a file; name a folder"),
    "a folder for a config": (["--config=configs"], "configs is a folder"),
    "a name of no config": (["--config=quickstrat"], "Shipped: .*Did you mean quickstart"),
    "commas for a colon": (
        ["--config=configs/quickstart.py,models=16"],
        "follow a colon.*configs/quickstart.py:models=16",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_a_sentence_that_names_the_flag_and_the_remedy(case, launcher):
    flags, message = REFUSED[case]
    prepared, stderr, _ = launcher(
        *([] if any(f.startswith("--config=") for f in flags) else [QUICK]), *flags
    )
    assert prepared is None and re.search(message, stderr, re.DOTALL), stderr
    check_sentence(stderr, flags)


OBEYED = {
    "--config.data.examples=1e3": ("data.examples", 1000),
    "--config.seed=0,1,2": ("seed", (0, 1, 2)),
    "--config.seed=(0, 1)": ("seed", (0, 1)),
    "--config.model.widths=64,64": ("model.widths", (64, 64)),
    "--config.model.widths=[64]": ("model.widths", (64,)),
    "--config.report.fprs=0.001,0.01": ("report.fprs", (0.001, 0.01)),
    "--config.report.slices=class,correct": ("report.slices", ("class", "correct")),
    "--config.query.signals=noise_robustness:samples=4,sigma=.05,hinge": (
        "query.signals",
        ("noise_robustness:samples=4,sigma=.05", "hinge"),
    ),
    "--config.query.views=identity,identity": ("query.views", ("identity", "identity")),
    "--config.learner.learning_rate=1": ("learner.learning_rate", 1.0),
    "--config.report.figures": ("report.figures", True),
    "--noconfig.report.figures": ("report.figures", False),
    "--config.run.chunk=auto": ("run.chunk", "auto"),
    "--config.design.targets=0,2": ("design.targets", (0, 2)),
    "--config.learner.stop.patience=3": ("learner.stop.patience", 3),
    "--config.report.groups.mine=3,17": ("report.groups.mine", (3, 17)),
    "--config.model.dropout=.5": ("model.dropout", 0.5),
}


@pytest.mark.parametrize("flag", OBEYED)
def test_a_value_has_the_type_of_its_field(flag, launcher):
    name, value = OBEYED[flag]
    prepared, stderr, _ = launcher(flag, QUICK)
    assert prepared is not None, stderr
    got = at(prepared[0].to_dict(), name)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize("order", [1, -1])
def test_a_name_chooses_whatever_the_order(order, launcher):
    """The old choice's fields go, the new one's are at their defaults, and what is typed counts."""
    flags = [
        "--config.model.name=small_cnn",
        "--config.model.num_conv=1",
        "--config.data.flat=false",
        "--config.learner.name=backprop",
    ]
    prepared, stderr, _ = launcher(*([QUICK, *flags][::order]))
    assert prepared is not None, stderr
    config = prepared[0].to_dict()
    assert (
        config["model"] == dict(name="small_cnn", num_conv=1, activation="relu", form="auto")
        and config["data"]["flat"] is False
    )
    prepared, stderr, _ = launcher(*([QUICK, "--config.data.name=breast_cancer"][::order]))
    assert "flat" not in prepared[0].data and prepared[1].pool.x.shape[1:] == (30,)
    prepared, stderr, _ = launcher(
        *(
            [
                QUICK,
                "--config.learner.gradient=private",
                "--config.learner.privacy.noise_multiplier=2",
            ][::order]
        )
    )
    assert (
        prepared[0].learner.privacy.noise_multiplier == 2.0
        and prepared[0].learner.privacy.clip_norm == 1.0
    )
    flags = [
        "--config.attacks.lira.name=rmia",
        "--config.attacks.lira.gamma=3",
        "--config.learner.name=least_squares",
        "--config.learner.ridge=1",
    ]
    prepared, stderr, _ = launcher(*([QUICK, *flags][::order]))
    assert (
        prepared[0].attacks.lira.to_dict() | dict(gamma=3.0) == prepared[0].attacks.lira.to_dict()
        and "variance" not in prepared[0].attacks.lira
    )
    assert (
        prepared[0].learner.ridge == 1.0
        and prepared[0].learner.objective == "own"
        and "epochs" not in prepared[0].learner
    )


def test_what_a_choice_leaves_out_of_the_config_file_is_said(launcher):
    prepared, stderr, _ = launcher(
        "--config=configs/zoo/xor.py:models=4,epochs=2",
        "--config.learner.name=balanced_pairs",
        "--config.model.name=siamese",
        "--config.learner.objective=contrastive",
    )
    config = prepared[0].to_dict() if prepared else {}
    assert "note: " in stderr and "of the config file is left out" in stderr, stderr
    assert not prepared or config["learner"]["name"] == "balanced_pairs"


@pytest.mark.parametrize(
    "text, names",
    [
        ("lira,rmia", {"lira", "rmia"}),
        ("gap,threshold_loss,lira_shrunk", {"gap", "threshold_loss", "lira_shrunk"}),
        ("rmia_offline", {"rmia_offline"}),
    ],
)
def test_attacks_are_chosen(text, names, launcher):
    prepared, stderr, _ = launcher(QUICK, f"--attacks={text}")
    assert prepared is not None, stderr
    assert {attack.name for attack in prepared[1].attacks} == names == set(prepared[0].attacks)


def names_of(prepared):
    """The names of the attacks of (config, experiment)."""
    return {attack.name for attack in prepared[1].attacks}


def test_attacks_are_added_and_taken_away(launcher, files):
    before = set(command_line.config_of("configs/quickstart.py").attacks)
    prepared, _, _ = launcher(
        "--attacks=+rmia,-gap,+base_offline", QUICK, "--config.attacks.rmia.gamma=4"
    )
    assert (
        set(prepared[0].attacks) == before - {"gap"} | {"rmia", "base_offline"}
        and prepared[0].attacks.rmia.gamma == 4.0
    )
    assert prepared[0].attacks.base_offline.mode == "offline"
    scores = f"--config=configs/scores.py:path={files / 'mine.npz'}"
    standard = names_of(launcher(scores)[0])
    assert len(standard) > 1
    taken = sorted(standard)[0]
    assert names_of(launcher(scores, f"--attacks=-{taken}")[0]) == standard - {taken}
    assert names_of(launcher(scores, "--attacks=+threshold")[0]) == standard | {"threshold"}
    assert names_of(launcher(scores, "--attacks=threshold")[0]) == {"threshold"}


def test_lists_of_names_with_settings():
    assert fields.split("identity,shift:1,0,flip") == ["identity", "shift:1,0", "flip"]
    assert fields.split("noise_robustness:samples=4,sigma=.05,loss") == [
        "noise_robustness:samples=4,sigma=.05",
        "loss",
    ]
    assert (
        fields.split("('a,b', c)") == ["a,b", "c"]
        and fields.split("[1, 2]") == ["1", "2"]
        and fields.split("()") == []
    )


def test_an_attack_of_ones_own_goes_by_its_last_name(tmp_path, monkeypatch, launcher):
    (tmp_path / "my_own").mkdir()
    (tmp_path / "my_own" / "mine.py").write_text(
        "from mia_jax.types import Attack\n\n\ndef make(*, power: int = 1):\n"
        "    return Attack("
        "lambda evidence, key: -evidence.target['loss'].mean(0) ** power, ('loss',), "
        "knows='nothing')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    prepared, stderr, _ = launcher(
        QUICK, "--attacks=gap,my_own.mine", "--config.attacks.mine.power=3"
    )
    assert prepared is not None, stderr
    assert prepared[0].attacks.mine.to_dict() == dict(
        name="my_own.mine", power=3, defense="", adaptive=False
    )


@pytest.mark.parametrize("words", ["quick,models=32", "models=32,quick"])
def test_quick_changes_what_was_not_typed(words):
    config = command_line.config_of("configs/quickstart.py", words)
    assert config.design.models == 32 and config.learner.epochs == 40
    assert (
        command_line.config_of(
            "configs/lira_cifar10.py", f"smoke,{words.replace('quick', 'norm=group')}"
        ).design.models
        == 32
    )
    assert (
        command_line.config_of(
            "configs/zoo/vgg.py", f"full,{words.replace('quick', 'epochs=3')}"
        ).learner.epochs
        == 3
    )


@pytest.mark.parametrize("name", ["dp_fashion_mnist", "zoo/siamese", "zoo/forward_forward"])
def test_no_epochs_at_all_can_be_typed(name):
    assert command_line.config_of(f"configs/{name}.py", "epochs=0").learner.epochs == 0
    assert command_line.config_of(f"configs/{name}.py").learner.epochs > 0


def test_slips_are_said(launcher):
    assert (
        "learner.epochs=0 trains nothing: a null test"
        in launcher(QUICK, "--config.learner.epochs=0")[1]
    )
    assert (
        "more than the 808 rows of a model"
        in launcher(QUICK, "--config.learner.batch_size=5000")[1]
    )
    assert (
        "given twice, as 1 and as 2; the last one counts"
        in launcher(QUICK, "--config.seed=1", "--config.seed=2")[1]
    )


@pytest.mark.parametrize("kind", [k for k in listing.known_kinds()])
def test_lists_say_what_there_is(kind, launcher):
    _, stderr, out = launcher(f"--list={kind}")
    lines = out.splitlines()
    assert not stderr and len(lines) > 3
    if kind == "attacks":
        assert (
            re.search(r"lira .*LiRA.*\n.*Reads: rescaled_logit", out)
            or "Reads: rescaled_logit" in out
        )
    if kind == "fields:learner":
        assert re.search(r"learning_rate +a number; default 0.001", out)
        assert (
            "Passes over a model's training rows." in out and "repeated" not in out
        )  # report.epochs means something else
    if kind == "fields:data":
        assert re.search(r"path +text; must be given", out)


def test_a_file_of_another_encoding_is_named(tmp_path, launcher):
    path = tmp_path / "table.csv"
    path.write_bytes("label,a,b\nja,1,2\nnein\xe9,2,3\n".encode("latin-1"))
    prepared, stderr, _ = launcher(f"--config=configs/tabular.py:path={path},label=label")
    assert prepared is None and "table.csv is not UTF-8" in stderr


def test_a_mistake_in_code_is_one_line_that_says_where(tmp_path, monkeypatch, launcher):
    (tmp_path / "broken_net.py").write_text("def make(*, num_classes):\n    return {}['width']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    prepared, stderr, _ = launcher(QUICK, "--config.model.name=broken_net")
    assert prepared is None and "Traceback" not in stderr
    assert re.search(
        r"error: KeyError in .*broken_net.py, line 2: 'width' .*--debug shows the whole traceback",
        stderr,
    ), stderr


CODE = {
    "import nothing_of_the_kind": "line 1: No module named",
    "def get_config(arg=None):\n    return nothing": "line 2: name 'nothing' is not defined",
    "def get_config(": "line 1, is no Python",
    "x = 1": "defines no get_config",
    "def get_config():\n    return None": "returns nothing",
    "def get_config():\n    return dict(a=1)": "returns no config",
}


@pytest.mark.parametrize("code", CODE)
def test_a_config_file_with_a_mistake_names_its_line(code, tmp_path, launcher):
    (tmp_path / "mine.py").write_text(code)
    prepared, stderr, _ = launcher(f"--config={tmp_path / 'mine.py'}")
    assert prepared is None and re.search(CODE[code], stderr), stderr
    check_sentence(stderr, code)


@pytest.mark.parametrize("name", ["a/b", "/elsewhere/evil", "", "..", "$x^{$", "a.b"])
def test_the_name_of_an_attack_is_a_folder(name):
    parts = dict(data=dict(name="digits"), design=dict(name="halves"), model=dict(name="mlp"))
    with pytest.raises(ValueError, match="must be a name of letters"):
        configuration.complete(**parts, attacks={name: dict(name="gap")})
    config = configuration.complete(**parts, attacks={}).to_dict()
    config["attacks"] = {name: dict(name="gap", defense="", adaptive=False)}
    with pytest.raises(ValueError, match="must be a name of letters"):
        build.build(config, seed=0)


def test_the_name_of_a_group_is_text_without_dots():
    parts = dict(
        data=dict(name="digits"), design=dict(name="halves"), model=dict(name="mlp"), attacks={}
    )
    for name in ("", "v1.2", 3):
        with pytest.raises(
            ValueError, match=r"its name must be text without dots|the name of a group"
        ):
            configuration.complete(**parts, report=dict(groups={name: (1, 2)}))
    assert configuration.complete(**parts, report=dict(groups={"age > 40": (1, 2)})).report.groups[
        "age > 40"
    ] == (1, 2)


def test_values_of_a_config_file_are_typed_as_well():
    parts = dict(data=dict(name="digits"), design=dict(name="halves"), attacks={})
    with pytest.raises(ValueError, match=r"learner.epochs=2.5: it must be a whole number"):
        configuration.complete(**parts, model=dict(name="mlp"), learner=dict(epochs=2.5))
    with pytest.raises(ValueError, match=r"learner.stop.patience='?a'?: it must be a whole number"):
        configuration.complete(
            **parts, model=dict(name="mlp"), learner=dict(stop=dict(patience="a"))
        )
    config = configuration.complete(
        **parts,
        model=dict(name="mlp"),
        learner=dict(epochs=np.int64(3), learning_rate=1),
        report=dict(slices="class"),
    )
    assert (
        config.learner.epochs == 3
        and type(config.learner.epochs) is int
        and config.report.slices == ("class",)
    )
    config = config.to_dict()
    config["report"]["draws"] = "many"
    with pytest.raises(ValueError, match=r"report.draws=many: it must be a whole number"):
        build.build(config, seed=0)


@pytest.mark.parametrize("folder", [ROOT, "/"])
def test_a_python_without_the_packages_says_what_to_type(folder):
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(ROOT / "launch.py"), "--list=attacks"],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 1 and re.match(
        r"error: this Python \(.*\) has no absl, ml_collections, jax, .*activate", done.stderr
    ), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_nobody_but_the_command_line_is_told_flags():
    """A function's caller is never told a flag: only the modules of the command line have any in
    their texts.
    """
    for path in sorted((ROOT / "mia_jax").rglob("*.py")):
        # slurm writes command lines and distributed reads one, for the command line alone
        if path.stem in ("__main__", "command_line", "overrides", "listing", "jobs", "slurm"):
            continue
        if path.stem == "distributed" or path.parent.name == "commands":
            continue
        bodies = [
            node.body
            for node in sources.nodes(path)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        ]
        docs = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
        texts = [
            node
            for node in sources.nodes(path)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docs
        ]
        remedy = [
            (node.lineno, node.value)
            for node in texts
            if re.search(
                r"(?<![\w-])--[a-z]", node.value.replace("--no-deps --target", "")
            )  # pip's
        ]
        assert not remedy, f"{path.relative_to(ROOT)}: {remedy}"


def test_an_optimizer_of_optax_is_chosen_by_name_and_set_by_its_arguments(launcher):
    """In a config file and on the command line; what optax does not have is refused with its
    arguments and the closest.
    """
    prepared, stderr, _ = launcher(
        QUICK,
        "--config.learner.optimizer=lion",
        "--config.learner.optimizer.b1=.8",
        "--config.learner.learning_rate=.1",
    )
    assert prepared is not None, stderr
    learner = prepared[0].learner
    assert learner.optimizer.to_dict() == dict(name="lion", b1=0.8) and learner.learning_rate == 0.1
    words = (
        "--config.learner.schedule=cosine_decay_schedule",
        "--config.learner.schedule.warmup_epochs=.5",
        "--config.learner.optimizer.learning_rate=.2",
    )
    prepared, stderr, _ = launcher(QUICK, *words)
    assert prepared is not None, stderr
    assert prepared[0].learner.schedule.to_dict() == dict(
        name="cosine_decay_schedule", warmup_epochs=0.5
    )
    assert prepared[0].learner.learning_rate == 0.2 and prepared[0].learner.optimizer == "adam"


REFUSED_OPTIMIZERS = {
    "name": (["--config.learner.optimizer=adm"], r"there is no 'adm'.*Did you mean 'adam'"),
    "old name": (["--config.learner.optimizer=momentum"], r"dict\(name='sgd', momentum=0.9\)"),
    "old schedule": (["--config.learner.schedule=cosine"], "'cosine_decay_schedule'"),
    "argument": (
        ["--config.learner.optimizer=lion", "--config.learner.optimizer.weightdecay=.9"],
        "no field 'weightdecay'.*Did you mean 'weight_decay'.*b1, b2",
    ),
    "value": (["--config.learner.optimizer.b1=fast"], "optimizer.b1=fast: it must be a number"),
    "moved": (
        ["--config.learner.momentum=.9"],
        "no field 'momentum': it is .*learner.optimizer.momentum",
    ),
    "moved too": (
        ["--config.learner.epsilon=1e-7"],
        "no field 'epsilon': it is .*learner.optimizer.eps",
    ),
    "renamed": (
        ["--config.target.oracle=my_module.answer"],
        "target has no field 'oracle': it is .*target.black_box",
    ),
    "another's": (
        ["--config.learner.optimizer=sgd", "--config.learner.optimizer.b1=.9"],
        "no field 'b1'. Fields|no field 'b1'.*momentum",
    ),
    "module": (["--config.learner.optimizer=nowhere.mine"], "there is no module 'nowhere.mine'"),
}


@pytest.mark.parametrize("words, message", REFUSED_OPTIMIZERS.values(), ids=REFUSED_OPTIMIZERS)
def test_unknown_and_former_names_are_refused(words, message, launcher):
    prepared, stderr, _ = launcher(QUICK, *words)
    assert prepared is None and re.search(message, stderr), stderr


def test_config_files_set_an_optimizer_and_its_learning_rate_once():
    parts = dict(
        data=dict(name="digits"),
        design=dict(name="halves", models=4),
        attacks=dict(gap=dict()),
        model=dict(name="mlp"),
    )
    config = configuration.complete(
        **parts, learner=dict(optimizer=dict(name="lion", learning_rate=1e-4, b1=0.8))
    )
    assert config.learner.learning_rate == 1e-4 and config.learner.optimizer.to_dict() == dict(
        name="lion", b1=0.8
    )
    refused = {
        "are the same field; give it once": dict(
            optimizer=dict(name="lion", learning_rate=1e-4), learning_rate=1e-3
        ),
        r"learner.optimizer has no field 'weightdecay'.*Did you mean 'weight_decay'": dict(
            optimizer=dict(name="lion", weightdecay=0.9)
        ),
        r"learner.optimizer.b1='fast'|learner.optimizer.b1=fast": dict(
            optimizer=dict(name="lion", b1="fast")
        ),
        "needs a name": dict(optimizer=dict(b1=0.9)),
        "no field 'weight_decay': it is learner.optimizer.weight_decay": dict(weight_decay=0.1),
        "learner.schedule='constant' is called as in optax": dict(schedule="constant"),
    }
    for message, learner in refused.items():
        with pytest.raises(ValueError, match=message):
            configuration.complete(**parts, learner=learner)
