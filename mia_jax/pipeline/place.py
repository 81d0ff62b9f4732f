"""Claims the workdir of a run, and decides whether a fleet on disk grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mia_jax.pipeline.experiment import Experiment
from mia_jax.runtime import files, jobs
from mia_jax.runtime.provenance import unless_read_only
from mia_jax.runtime.store import Store

OTHER_WORKDIR = "Use another workdir for another config, or type the values on disk."
OTHER_FOLDER = "Give other arrays or settings another folder=, or leave folder out."


class Place:
    """Claims the workdir of one run.

    The workdir is checked at once, and claimed by `begin()` before the first file is written. A run
    that fails before it has written any result releases the workdir, so that another config can be
    tried in it.

    Args:
      experiment: what is run.
      store: the workdir.
      extend: allows the fleet to grow.
      called: whether remedies name arguments of mia_jax.audit, not flags.
      begin: called once by `begin`, to log the start.
    """

    def __init__(
        self, experiment: Experiment, *, store: Store, extend: bool, called: bool, begin: Callable
    ):
        self.experiment, self.store, self.called = experiment, store, called
        self.tell, self.begun, self.first = begin, False, False
        claim = experiment.train_config
        check_examples(claim, store=store, called=called)
        files.check_claim(store.train.folder, claim, remedy=remedy(store, called=called))
        self.grows = growing(experiment.design, store=store, extend=extend, called=called)

    def begin(self) -> None:
        """Claims the folder and logs the start; only the first call has an effect.

        It writes the membership, and sets aside what belongs to a smaller fleet.
        """
        if self.begun:
            return
        store = self.store
        claim, what = self.experiment.train_config, remedy(store, called=self.called)
        self.first = files.claim(store.train.folder, claim, remedy=what)
        self.begun = True
        if self.grows:
            for stale in (store.attacks, store.report.folder):
                moved = files.set_aside(stale)
                if moved:
                    jobs.say(f"{stale.name} of the smaller fleet is kept in {moved.name}/")
        if self.grows or not store.membership.exists():
            arrays = membership_arrays(self.experiment.design)
            files.write_npz(store.membership, dict(run=store.run), **arrays)
        self.write_config()
        self.tell()

    def write_config(self) -> None:
        """Writes config.json, the whole config as it was last given.

        On a read-only disk the file is left as it is if there was nothing to do.
        """
        path = self.store.config
        config = dict(self.experiment.config) | dict(seed=self.experiment.seed)
        try:
            if path.exists():
                if not files.differences(files.read_json(path, needs={}), config):
                    return
        except ValueError:
            pass  # damaged: nothing reads it, and it is written again
        unless_read_only(lambda: files.write_json(path, config), strict=self.begun)

    def release(self) -> None:
        """Releases the folder if this run was the first in it and wrote no result."""
        store = self.store
        provenance = store.provenance()
        aside = {store.external_models.folder, store.trackers, store.jobs}
        made = [
            path
            for path in store.root.rglob("*")
            if path.is_file()
            and path.name not in provenance
            and not {*aside, store.profiles} & set(path.parents)
        ]
        if not self.first or set(made) - {store.membership, store.train.plan}:
            return
        for path in store.all_training_metrics():
            files.set_aside(path)
        files.set_aside(store.trackers)
        for path in [*made, store.config, store.train.claim]:
            path.unlink(missing_ok=True)


def check_examples(claim: Mapping, *, store: Store, called: bool) -> None:
    """Raises ValueError if a workdir belongs to the same settings, but to other examples.

    A file of the data has then been written again since the workdir was begun.
    """
    path = store.train.claim
    known = files.read_json(path, needs={}) if path.exists() else {}
    same = {k: v for k, v in known.items() if k != "pool"}
    if known.get("pool", claim["pool"]) == claim["pool"]:
        return
    if not files.differences(same, {k: v for k, v in claim.items() if k != "pool"}):
        raise ValueError(
            f"the examples have changed since {store.root} was begun (their digest was "
            f"{known['pool']} and is {claim['pool']}): put the former data back, or use another "
            f"{'folder' if called else 'workdir'} for these."
        )


def remedy(store: Store, *, called: bool) -> str:
    """Returns what a user can do about a workdir of another config."""
    text = OTHER_FOLDER if called else OTHER_WORKDIR
    if store.train.started() or store.answers.folder.exists():
        return text
    return (
        f"{text} Nothing has been made there yet: if no other process is at work in it, the folder "
        "can be deleted."
    )


def membership_arrays(design) -> dict[str, np.ndarray]:
    """Returns the arrays of design/membership.npz."""
    names = ("member_MN", "evaluated_MN", "shadow_MM", "population_N", "unit_M")
    arrays = {name: getattr(design, name) for name in names}
    return dict(targets=np.asarray(design.targets)) | arrays


def growing(design, *, store: Store, extend: bool, called: bool) -> bool:
    """Returns whether the fleet on disk grows.

    Raises:
      ValueError: the fleet on disk is another one, or it may not grow.
    """
    path, models = store.membership, len(design.member_MN)
    if not path.exists():
        return False
    stored = files.read_npz(path).get("member_MN", np.zeros(0))
    if stored.ndim != 2 or stored.dtype != design.member_MN.dtype:
        error = ValueError(f"its member_MN is {stored.dtype}{list(stored.shape)}")
        raise ValueError(files.damaged(path, error))
    if called and len(stored) != models:
        raise ValueError(
            f"{store.root} holds an audit of {len(stored)} models, and these arrays are of "
            f"{models}. {OTHER_FOLDER}"
        )
    if len(stored) > models:
        raise ValueError(
            f"{store.root} holds a fleet of {len(stored)} models and the config asks for {models}. "
            f"A fleet can grow, not shrink: use design.models={len(stored)} (design.targets "
            "chooses which are audited), or another workdir."
        )
    if not np.array_equal(stored, design.member_MN[: len(stored)]):
        raise ValueError(
            f"{path} records another membership than this config draws, so the results would be "
            f"wrong. {remedy(store, called=called)}"
        )
    if len(stored) < models and not extend:
        raise ValueError(
            f"design.models: {len(stored)} on disk, {models} in this run. Set extend=True to grow "
            "the fleet, or use another workdir."
        )
    return len(stored) < models
