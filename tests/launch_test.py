"""What a user types and sees: --help, arguments, and every mistake as one message with exit code 1
and nothing lost.
"""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from mia_jax.report import source
from tests.launching import launch

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "quickstart.py"
TINY = [
    "--config=configs/quickstart.py:models=4,epochs=2",
    "--config.run.chunk=2",
    "--config.report.draws=40",
    "--config.report.figures=False",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished tiny run."""
    folder = tmp_path_factory.mktemp("run") / "workdir"
    stdout, _ = launch(*TINY, f"--workdir={folder}")
    (folder.parent / "said.txt").write_text(stdout)
    return folder


@pytest.mark.parametrize("command", (["launch.py"], ["-m", "mia_jax"]), ids=" ".join)
def test_help_reads_well(command):
    done = subprocess.run(
        [sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    text = done.stdout + done.stderr
    assert "Traceback" not in text
    for word in (
        "--config",
        "--workdir",
        "--stages",
        "extend",
        "debug",
        "--compile_cache",
        "configs/quickstart.py",
    ):
        assert word in text


def test_a_run_leaves_its_files_and_the_same_command_does_nothing_again(run):
    for name in (
        "config.json",
        "run.json",
        "metrics.jsonl",
        "design/membership.npz",
        "train/plan.json",
        "report/report.json",
        "report/report.html",
        "report/report.md",
    ):
        assert (run / name).is_file(), name
    assert len(list((run / "train" / "model").glob("*.npz"))) == 4 and not list(
        (run / "train" / "running").glob("*.npz")
    )
    assert (
        len(list((run / "signal" / "loss").glob("*.npy"))) == 4
        and (run / "attack" / "lira" / "scores.npz").is_file()
    )
    stamps = {
        p: p.stat().st_mtime_ns
        for p in run.rglob("*")
        if p.is_file() and p.name not in ("config.json", "run.json")
    }
    _, messages = launch(*TINY, f"--workdir={run}")
    assert "all 4 models are on disk" in messages
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items())
    runs = json.loads((run / "run.json").read_text())["runs"]
    assert (
        len(runs) >= 2
        and set(runs[-1]["seconds"]) == {"train", "query", "attack", "report"}
        and runs[0]["packages"]["jax"]
    )


def test_a_run_ends_with_its_answer(run):
    """The last lines on the terminal: verdict, the leading attack's numbers with intervals, how
    many checks passed, the report's path; the same again when nothing is left to do, and the first
    of them in report.md.
    """
    lines = (run.parent / "said.txt").read_text().splitlines()
    assert (
        re.match(r"(LEAK SHOWN \(|NO LEAK SHOWN|VERDICT WITHHELD|CHECK FAILED)", lines[-4])
        and lines[-1] == f"report: {run / 'report' / 'report.html'}"
    )
    assert re.match(
        r"  (without a verdict, )?\w+: AUC 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] \(random guessing: "
        r"0\.500\)",
        lines[-3],
    )
    assert re.match(r"checks: \d of 7 passed", lines[-2])
    again, _ = launch(*TINY, f"--workdir={run}")
    assert again.splitlines()[-4:] == lines[-4:]
    report = json.loads((run / "report" / "report.json").read_text())
    assert (
        report["verdict"]["strongest"] in lines[-3] and (run / "report" / "records.csv").is_file()
    )


def test_open_shows_the_page_after_the_run(run, tmp_path):
    """--open opens report.html; the browser is that of the environment."""
    browser, opened = tmp_path / "browser.sh", tmp_path / "opened.txt"
    browser.write_text(f'#!/bin/sh\necho "$1" > "{opened}"\n')
    browser.chmod(0o755)
    config = tmp_path / "with_browser.py"
    config.write_text(
        f'import os\n\nos.environ["BROWSER"] = "{browser} %s"\n' + CONFIG.read_text("utf-8")
    )
    arguments = [f"--config={config}:models=4,epochs=2", *TINY[1:], f"--workdir={run}"]
    launch(*arguments)
    assert not opened.exists()
    launch(*arguments, "--open")
    assert opened.read_text().strip() == (run / "report" / "report.html").as_uri()


@pytest.mark.slow
def test_the_chunk_is_a_number_or_auto(tmp_path):
    _, messages = launch(
        *TINY, f"--workdir={tmp_path}", "--config.run.chunk=auto", "--stages=train"
    )
    assert (
        "measuring the fastest chunk" in messages
        and json.loads((tmp_path / "train" / "plan.json").read_text())["chunk"] >= 1
    )
    _, messages = launch(
        *TINY, f"--workdir={tmp_path / 'b'}", "--config.run.chunk=fast", fails=True
    )
    assert "run.chunk='fast' must be a whole number of models >= 1, or 'auto'" in messages


def test_summary_prints_the_model():
    out, _ = launch("--config=configs/quickstart.py", "--summary")
    assert "19,210" in out


BAD = {
    "no config": ([], "--config is missing"),
    "no workdir": (["--config=configs/quickstart.py"], "--workdir is missing"),
    "remote workdir": (
        ["--config=configs/quickstart.py", "--workdir=gs://bucket/run"],
        "--workdir=gs://bucket/run: the package for gs:// is missing .pip install",
    ),
    "missing config file": (
        ["--config=configs/quickstrat.py", "--workdir=W"],
        "no file configs/quickstrat.py.*Did you mean configs/quickstart.py",
    ),
    "config argument": (
        ["--config=configs/quickstart.py:modles=4", "--workdir=W"],
        "no argument 'modles'.*Did you mean 'models'",
    ),
    "config argument's type": (
        ["--config=configs/quickstart.py:models=four", "--workdir=W"],
        "models=four.*expected models=int",
    ),
    "stage": ([*TINY, "--workdir=W", "--stages=train,atack"], "'atack'.*Did you mean 'attack'"),
    "model": (
        [*TINY, "--workdir=W", "--config.model.name=mpl"],
        "there is no 'mpl'.*Did you mean 'mlp'",
    ),
    "attack": (
        [*TINY, "--workdir=W", "--config.attacks.lira.name=lyra"],
        "there is no 'lyra'.*Did you mean 'lira'",
    ),
    "field": ([*TINY, "--workdir=W", "--config.learner.lerning_rate=.1"], "lerning_rate"),
    "privacy of a run without": (
        [*TINY, "--workdir=W", "--config.learner.privacy.clip_norm=2.0"],
        "this config has no privacy.*gradient='private'",
    ),
    "value": (
        [*TINY, "--workdir=W", "--config.learner.optimizer=adm"],
        "there is no 'adm'.*Did you mean 'adam'",
    ),
    "number": ([*TINY, "--workdir=W", "--config.learner.learning_rate=fast"], "learning_rate"),
    "flag": ([*TINY, "--worksdir=W"], "worksdir"),
    "word": ([*TINY, "--workdir=W", "train"], "unexpected argument 'train'"),
    "odd fleet": (
        ["--config=configs/quickstart.py:models=5", "--workdir=W"],
        "models=5: halves trains complementary pairs.*models=6",
    ),
    "one model": (["--config=configs/quickstart.py:models=1", "--workdir=W"], "models=1.*even"),
    "data folder": (
        ["--config=configs/fashion_mnist.py:folder=/nowhere", "--workdir=W"],
        "/nowhere",
    ),
    "attack that the design cannot carry": (
        ["--config=tests/examples/offline_blocks.py", "--workdir=W"],
        "attack 'lira' needs shadow_in, which the design 'blocks' cannot give",
    ),
    "NaN in the data": (
        ["--config=tests/examples/nan.py:path=NAN", "--workdir=W"],
        r"nan: x is nan in row 5 .*must be finite",
    ),
    "class without a member": (
        ["--config=tests/examples/nan.py:path=RARE", "--workdir=W"],
        "class 2 has no member in model",
    ),
    "query before train": (
        [*TINY, "--workdir=W", "--stages=query"],
        "the stage query reads .* holds nothing of train: .*--stages=train,query",
    ),
    "report before attack": (
        [*TINY, "--workdir=W", "--stages=report"],
        "nothing of train, query, attack: .*--stages=train,query,attack,report",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_message(case, tmp_path):
    flags, message = BAD[case]
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    np.savez(tmp_path / "nan.npz", x=np.where(np.arange(40)[:, None] == 5, np.nan, x), y=y)
    np.savez(tmp_path / "rare.npz", x=x, y=np.where(np.arange(40) == 7, 2, y))
    names = {
        "=W": f"={tmp_path / 'w'}",
        "=NAN": f"={tmp_path / 'nan.npz'}",
        "=RARE": f"={tmp_path / 'rare.npz'}",
    }
    for short, path in names.items():
        flags = [f.replace(short, path) if f.endswith(short) else f for f in flags]
    _, messages = launch(*flags, fails=True)
    assert re.search(message, messages, re.DOTALL), messages
    if "holds nothing of" in message or "nothing of train" in message:
        assert not (tmp_path / "w").exists()  # nothing was claimed


def test_another_config_is_refused_with_the_differing_key(run):
    _, messages = launch(
        *TINY, f"--workdir={run}", "--config.learner.learning_rate=0.1", fails=True
    )
    assert (
        "learner.learning_rate: 0.003 on disk, 0.1 in this run" in messages
        and "another --workdir" in messages
    )
    _, messages = launch(*TINY, f"--workdir={run}", "--config.seed=1", fails=True)
    assert "seed: 0 on disk, 1 in this run" in messages
    _, messages = launch(
        *TINY, f"--workdir={run}", "--config.attacks.lira.mode=offline", fails=True
    )
    assert "attack.mode: 'online' on disk, 'offline' in this run" in messages
    assert (run / "report" / "report.md").is_file() and len(
        list((run / "train" / "model").glob("*.npz"))
    ) == 4


def test_how_a_run_is_computed_is_not_part_of_its_config(run):
    _, messages = launch(
        *TINY, f"--workdir={run}", "--config.run.chunk=4", "--config.run.checkpoint_every=1"
    )
    assert "nothing changed" in messages


@pytest.mark.slow
def test_seeds_repeat_a_run_and_report_mean_and_sd(tmp_path):
    flags = [*TINY, "--config.seed=0,1", f"--workdir={tmp_path}"]
    launch(*flags)
    together = source.load(tmp_path / "report" / "report.json")
    singles = [source.load(tmp_path / f"seed-{s}" / "report" / "report.json") for s in (0, 1)]

    def value(report, attack="lira", metric="auc"):
        return next(
            r
            for r in report["results"]
            if (r["attack"], r["metric"], r["target"]) == (attack, metric, None)
        )

    values = [value(single)["value"] for single in singles]
    row = value(together)
    assert (
        row["value"] == pytest.approx(np.mean(values))
        and row["sd_over_seeds"] == pytest.approx(np.std(values, ddof=1))
        and row["n_seeds"] == 2
    )
    assert values[0] != values[1]


@pytest.mark.slow
def test_a_fleet_grows_only_on_request_and_keeps_the_old_report(tmp_path):
    launch(*TINY, f"--workdir={tmp_path}")
    models = {p.name: p.read_bytes() for p in (tmp_path / "train" / "model").glob("*.npz")}
    six = [TINY[0].replace("models=4", "models=6"), *TINY[1:], f"--workdir={tmp_path}"]
    _, messages = launch(*six, fails=True)
    assert "4 on disk, 6 in this run" in messages and "--extend" in messages
    launch(*six, "--extend")
    assert len(list((tmp_path / "train" / "model").glob("*.npz"))) == 6
    assert all(
        (tmp_path / "train" / "model" / name).read_bytes() == content
        for name, content in models.items()
    )
    assert (
        (tmp_path / "report.1" / "report.md").is_file()
        and (tmp_path / "attack.1").is_dir()
        and (tmp_path / "report" / "report.md").is_file()
    )
    _, messages = launch(*TINY, f"--workdir={tmp_path}", fails=True)
    assert "holds a fleet of 6 models" in messages


@pytest.mark.slow
def test_a_damaged_model_is_named_and_made_anew(tmp_path):
    launch(*TINY, f"--workdir={tmp_path}", "--stages=train")
    path = tmp_path / "train" / "model" / "00002.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-300])
    _, messages = launch(*TINY, f"--workdir={tmp_path}", fails=True)
    assert "00002.npz is damaged" in messages and "Delete it" in messages
    path.unlink()
    launch(*TINY, f"--workdir={tmp_path}")
    assert (tmp_path / "report" / "report.md").is_file()


@pytest.mark.slow
def test_debug_runs_a_tiny_fleet_beside_the_workdir(tmp_path):
    launch(
        "--config=configs/quickstart.py",
        f"--workdir={tmp_path}",
        "--debug",
        "--config.data.examples=60",
    )
    assert (tmp_path / "debug" / "report" / "report.md").is_file() and not (
        tmp_path / "train"
    ).exists()


@pytest.mark.slow
def test_your_own_files_from_the_command_line(tmp_path):
    """Answers alone, with named attacks; a target's answers beside shadows of another net; a file
    without labels is one message.
    """
    rng = np.random.default_rng(0)
    y, member = rng.integers(0, 3, 121), rng.random((7, 121)) < 0.5
    logits = rng.normal(size=(7, 121, 3)) + 4 * member[..., None] * np.eye(3)[y]
    np.savez(tmp_path / "data.npz", x=rng.normal(size=(121, 4)).astype(np.float32), y=y)
    np.savez(tmp_path / "target.npz", logits=logits[0], member=member[0])
    np.savez(
        tmp_path / "mine.npz",
        logits=logits[0],
        member=member[0],
        labels=y,
        shadow_logits=logits[1:],
        shadow_member=member[1:],
    )
    scores, brief = (
        "--config=configs/scores.py",
        ["--config.report.draws=40", "--config.report.figures=False"],
    )
    launch(
        scores,
        f"--config.scores={tmp_path / 'mine.npz'}",
        "--config.attacks=lira,gap",
        f"--workdir={tmp_path / 'a'}",
        *brief,
    )
    report = json.loads((tmp_path / "a" / "report" / "report.json").read_text())
    assert (
        set(report["attacks"]) == {"lira", "gap"}
        and report["attacks"]["lira"]["signal"] == "rescaled_logit"
    )
    files = f"data={tmp_path / 'data.npz'},signals={tmp_path / 'target.npz'}"
    launch(
        f"--config=configs/your_target.py:{files},model=fc,models=4,epochs=1",
        "--config.run.chunk=4",
        f"--workdir={tmp_path / 'b'}",
        *brief,
    )
    report = json.loads((tmp_path / "b" / "report" / "report.json").read_text())
    assert (
        report["design"]["targets"] == [4]
        and report["about"]["model"]["name"] == "fc"
        and "lira_shrunk" in report["attacks"]
    )
    _, messages = launch(
        scores,
        f"--config.scores={tmp_path / 'target.npz'}",
        f"--workdir={tmp_path / 'c'}",
        fails=True,
    )
    assert (
        messages.strip().endswith("target.npz: labels [N] is missing; logits need it.")
        and not (tmp_path / "c").exists()
    )
