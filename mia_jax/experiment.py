"""From a config to a finished run: the only file that knows ConfigDict. Below it there are plain keyword arguments."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mia_jax import checks, configuration, registry, stages, views, workdir
from mia_jax.data import _pool as pools
from mia_jax.data import augment
from mia_jax.designs import _rows
from mia_jax.learners import stopping
from mia_jax.types import Attack, Design, Learner, Model, Pool, Signal

Path = pathlib.Path
STAGES = ("train", "query", "attack", "report")
GROWTH = ("models", "sources")  # design fields that may grow in a workdir: the first models stay as they are


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """Everything that one run of one seed needs: the objects the config names, and the config as a plain dict."""

    config: Mapping[str, Any]
    seed: int
    pool: Pool
    pool_hash: str
    duplicates: Mapping[str, int]
    design: Design
    rows_MK: np.ndarray
    weight_MK: np.ndarray
    model: Model
    learner: Learner
    signals: Mapping[str, Signal]
    attacks: Mapping[str, Attack]

    @property
    def train_config(self) -> dict:
        """What decides the variables of model m: everything upstream of the queries but the number of models."""
        design = {k: v for k, v in self.config["design"].items() if k not in (*GROWTH, "targets")}
        return dict(
            seed=self.seed, data=self.config["data"], pool=self.pool_hash, design=design, model=self.config["model"], learner=self.config["learner"]
        )


def run(config, *, workdir_path: str | Path, stages_wanted: Sequence[str] = STAGES, extend: bool = False) -> dict:
    """Runs the wanted stages of every seed of the config; returns the report (of the seeds together if there are several).

    `config` is what configuration.complete made. Finished stages are skipped; a workdir of another config is a ValueError that names the keys.
    With `extend` a fleet may grow; attacks and reports of the smaller one are set aside. Several seeds live in workdir/seed-<n>.
    """
    for stage in stages_wanted:
        checks.one_of(STAGES, stage=stage)
    root = Path(workdir_path)
    config = plain(config)
    seeds = config.pop("seed")
    seeds = tuple(seeds) if isinstance(seeds, tuple | list) else (seeds,)
    reports = {}
    for seed in seeds:
        folder = root if len(seeds) == 1 else root / f"seed-{seed}"
        audit = prepare(config, seed=int(seed))
        reports[seed] = run_one(audit, folder=folder, wanted=stages_wanted, extend=extend)
    if len(seeds) > 1 and "report" in stages_wanted:
        return stages.report_seeds(reports, folder=root / "report")
    return reports[seeds[0]]


def plain(config) -> dict:
    """The config as nested dicts of plain values."""
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)


def prepare(config: Mapping, *, seed: int) -> Audit:
    """Builds everything the config names, and refuses what cannot work, before anything is trained."""
    pool, duplicates = load_pool(config["data"])
    design = make_design(config["design"], pool=pool, seed=seed)
    check_images(config, pool=pool)
    if config["data"]["standardize"]:
        pool = pools.standardize(pool, design.population_N)
    rows_MK, weight_MK = _rows.all_rows(design)
    model = make("models", config["model"], num_classes=pool.num_classes)
    learner = make_learner(config["learner"], model=model, num_rows=rows_MK.shape[1], padded=bool((weight_MK == 0).any()))
    attacks = {name: make("attacks", attack) for name, attack in config["attacks"].items()}
    refusals = [text for name, attack in attacks.items() if (text := views.Fleet(design=design, signal={}, num_classes=0).refuse(attack, name))]
    if refusals:
        raise ValueError("\n".join(refusals))
    asked = {need for attack in attacks.values() for need in attack.needs if need not in views.SHADOW_NEEDS + views.OTHER_NEEDS}
    asked |= {"loss", "correct", *config["query"]["signals"]} | ({"logits"} if config["query"]["save_logits"] else set())
    return Audit(
        config=config,
        seed=seed,
        pool=pool,
        pool_hash=pools.content_hash(pool),
        duplicates=duplicates,
        design=design,
        rows_MK=rows_MK,
        weight_MK=weight_MK,
        model=model,
        learner=learner,
        signals={name: registry.make("signals", name) for name in sorted(asked)},
        attacks=attacks,
    )


def check_images(config: Mapping, *, pool: Pool) -> None:
    """ValueError before anything is trained if a query view or a training augmentation cannot be applied to these examples."""
    x, keys = pool.x[:1], jax.random.split(jax.random.key(0), 1)
    for view in augment.views(config["query"]["views"]):
        view(x)
    if config["learner"].get("augment"):
        augment.augmentation(tuple(config["learner"]["augment"]))(x, keys)


def make(kind: str, section: Mapping, **kwargs):
    """registry.make of a config section {'name': ..., field: value}."""
    return registry.make(kind, section["name"], {k: v for k, v in section.items() if k != "name"}, **kwargs)


def load_pool(section: Mapping) -> tuple[Pool, dict]:
    """The pool of config.data and the count of its duplicates (dropped on request)."""
    own = {k: v for k, v in section.items() if k not in configuration.DATA}
    pool = make("data", own)
    if section["drop_duplicates"]:
        pool = pools.drop_duplicates(pool)
    return pool, pools.duplicates(pool)


def make_design(section: Mapping, *, pool: Pool, seed: int) -> Design:
    """The design of config.design over this pool."""
    given = pool.columns.get("population")
    return make("designs", section, num_examples=len(pool.y), seed=seed, given_population_N=given, labels_N=pool.y)


def make_learner(section: Mapping, *, model: Model, num_rows: int, padded: bool) -> Learner:
    """The learner of config.learner with its objective and stopping rule."""
    checks.one_of(stages.VALIDATION, validation=section["validation"])
    objective = section["objective"]
    objective = dict(name=objective) if isinstance(objective, str) else objective
    loss = make("objectives", objective, model=model)
    stop = None if section["stop"] is None else registry.call(stopping.make, "learner.stop", section["stop"])
    own = {k: v for k, v in section.items() if k not in configuration.LEARNER}
    return make("learners", own, model=model, loss=loss, num_rows=num_rows, padded=padded, stopping=stop)


def run_one(audit: Audit, *, folder: Path, wanted: Sequence[str], extend: bool) -> dict:
    """The wanted stages of one seed in one workdir."""
    grown = settle(audit, folder=folder, extend=extend)
    workdir.write_json(folder / "config.json", dict(audit.config) | dict(seed=audit.seed))
    workdir.write_json(
        folder / "run.json", versions() | dict(seed=audit.seed, started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    )
    if grown:
        for stale in ("attack", "report"):
            moved = workdir.set_aside(folder / stale)
            if moved:
                print(f"{stale} of the smaller fleet is kept in {moved.name}/", file=sys.stderr)
    report: dict = {}
    if "train" in wanted:
        stages.train(audit, folder=folder)
    if "query" in wanted:
        stages.query(audit, folder=folder, views=augment.views(audit.config["query"]["views"]))
    if "attack" in wanted:
        stages.attack(audit, folder=folder)
    if "report" in wanted:
        report = stages.report(audit, folder=folder, versions=versions())
    return report


def settle(audit: Audit, *, folder: Path, extend: bool) -> bool:
    """Checks that the workdir is this config's, draws or verifies the membership; returns whether the fleet grows."""
    remedy = "Use another --workdir for another config, or type the values on disk."
    workdir.claim(folder / "train", audit.train_config, remedy=remedy)
    path = folder / "design" / "membership.npz"
    design = audit.design
    arrays = dict(member_MN=design.member_MN, evaluated_MN=design.evaluated_MN, shadow_MM=design.shadow_MM, population_N=design.population_N)
    arrays["targets"] = np.asarray(design.targets)
    if not path.exists():
        workdir.write_npz(path, **arrays)
        return False
    stored, models = workdir.read_npz(path)["member_MN"], len(design.member_MN)
    if len(stored) > models:
        raise ValueError(
            f"{folder} holds a fleet of {len(stored)} models and the config asks for {models}. A fleet can grow, not shrink: use "
            f"--config.design.models={len(stored)} (design.targets chooses which are audited), or another --workdir."
        )
    if not np.array_equal(stored, design.member_MN[: len(stored)]):
        raise ValueError(f"{path} records another membership than this config draws, so the results would be wrong. {remedy}")
    if len(stored) == models:
        return False
    if not extend:
        raise ValueError(f"design.models: {len(stored)} on disk, {models} in this run. Add --extend to grow the fleet, or use another --workdir.")
    workdir.write_npz(path, **arrays)
    return True


def versions() -> dict:
    """Versions, devices and revision that a result depends on."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn", "ml_collections")
    found = {name: importlib.metadata.version(name) for name in packages}
    here = Path(__file__).resolve().parent
    try:
        revision = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        revision = None
    devices = [f"{d.platform}:{d.device_kind}" for d in jax.local_devices()]
    return dict(packages=found, python=platform.python_version(), devices=devices, cores=os.cpu_count(), git=revision)


def model_summary(config) -> str:
    """The table of the config's model: layers, shapes, parameters."""
    audit = prepare({k: v for k, v in plain(config).items() if k != "seed"}, seed=0)
    return audit.model.summary(audit.pool.x[:1])


def debug_config(config):
    """The config with 4 models (as many as its design allows), 1 epoch and small batches of work, for --debug."""
    config = type(config)(config).unlock()
    for field, small in dict(models=4, sources=1, targets=2).items():
        if isinstance(config.design.get(field), int):
            config.design[field] = min(config.design[field], small)
    config.learner.epochs = min(config.learner.epochs, 1)
    config.run.chunk = 2
    config.report.draws = 40
    return config
