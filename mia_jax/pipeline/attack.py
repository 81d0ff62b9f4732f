"""ATTACK: scores every target and every shadow, in attack/<name>/scores.npz."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mia_jax import registry, threat_model
from mia_jax.configuration import settings
from mia_jax.metrics import record_groups
from mia_jax.pipeline import inputs, pieces
from mia_jax.pipeline.pieces import Piece, unkept
from mia_jax.pipeline.query import REMEDY
from mia_jax.pipeline.train import nothing
from mia_jax.query import forward, interactive
from mia_jax.runtime import files, jobs, stacks
from mia_jax.runtime.progress import Progress
from mia_jax.runtime.rows import Rows
from mia_jax.runtime.store import Answers, Store
from mia_jax.threat_model import PlannedAttack
from mia_jax.types import Attack, Design, Pool, Signal

FEWEST = 3  # members and non-members that an attack learns from, in each half if cross-fitted


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalReader:
    """Reads what was measured, for attacks and the report: signals, examples and membership.

    Args:
      store: the workdir.
      design: who trains on what, without the models that failed.
      pool: the examples.
      views: the names of the query views.
      claims: claims(epoch) gives the pairs (folder, what determines its answers) of the signals.
      failed: {model: record} of the models without which the run goes on.
      measured: the names of all signals.
    """

    store: Store
    design: Design
    pool: Pool
    views: tuple[str, ...]
    claims: Callable[[int | None], Sequence[tuple]]
    failed: Mapping[int, Mapping]
    measured: tuple[str, ...] = ()

    @property
    def models(self) -> list[int]:
        """Returns the models that have not failed."""
        return [m for m in range(len(self.design.member_MN)) if m not in self.failed]

    @property
    def scored_models(self) -> tuple[int, ...]:
        """Returns the targets and their shadows.

        Shadows are scored because the threshold of a target is chosen on the scores of its shadows.
        """
        shadows_M = self.design.shadow_MM[list(self.design.targets)].any(0)
        return tuple(sorted({*self.design.targets, *np.flatnonzero(shadows_M).tolist()}))

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """Returns the digests of who trained on what, and of labels and columns."""
        d, pool = self.design, self.pool
        columns = {k: np.asarray(v).tolist() for k, v in sorted(pool.columns.items())}
        return dict(
            design=files.digest(d.member_MN, d.evaluated_MN, d.shadow_MM, d.population_N, d.unit_M),
            data=files.digest(np.asarray(pool.y), columns),
        )

    @functools.cached_property
    def _x(self):
        """Returns the examples as attacks are given them: bytes in memory as plain float32."""
        x = self.pool.x
        return np.asarray(x) if isinstance(x, Rows) and not x.by_row else x

    def has(self, name: str, models: Sequence[int], *, epoch: int | None = None) -> bool:
        """Returns whether a signal of all these models is on disk.

        With `epoch`, the signal of the snapshots after it.
        """
        folder = self._answers(epoch).folder
        return all(interactive.signal_file(folder, name, m).exists() for m in models)

    def signal(self, name: str, models: Sequence[int], *, epoch: int | None = None) -> np.ndarray:
        """Returns one signal of several models, [M,A,N,...].

        With `epoch`, the signal of the snapshots after it.
        """
        return forward.load(self._answers(epoch).folder, name, models)

    def _answers(self, epoch: int | None) -> Answers:
        return self.store.answers if epoch is None else self.store.after(epoch)

    def fleet(
        self, attack: PlannedAttack, *, epoch: int | None = None
    ) -> threat_model.FleetSignals:
        """Returns the signals of the whole fleet as the attacker behind `attack` sees them.

        Args:
          attack: the attack whose signals are read, with its defense.
          epoch: the epoch of the snapshots; None for the finished models.

        Returns:
          The signals. Rows of models that failed are NaN, and no attacker sees them.

        Raises:
          ValueError: the answers on disk are damaged, or belong to other views or batches.
        """
        for claimed, config in self.claims(epoch):
            files.check_claim(claimed, config, remedy=REMEDY)
        parts = {
            name: self._of_fleet(attack, name, folder=self._answers(epoch).folder, epoch=epoch)
            for name in attack.files
        }
        small = sum(stack.nbytes for stack in parts.values()) <= stacks.LARGE
        signal = {name: np.asarray(stack) if small else stack for name, stack in parts.items()}
        pool = self.pool
        return threat_model.FleetSignals(
            design=self.design,
            signal=signal,
            num_classes=pool.num_classes,
            x=self._x if "x" in attack.attack.needs else pool.x,
            y=pool.y,
            columns=pool.columns,
        )

    def _of_fleet(
        self, attack: PlannedAttack, name: str, *, folder, epoch: int | None
    ) -> stacks.Stack:
        """Returns one signal [M,A,N,..] of all models; those that failed are NaN."""
        targets, parts, paths = set(self.design.targets), [], []
        for m in self.models:
            file = attack.file(name, target=m in targets)
            parts.append(forward.mapped(folder, file, m, run=self.store.run, epoch=epoch))
            paths.append(interactive.signal_file(folder, file, m))
        check_shapes(parts, paths, views=len(self.views), examples=len(self.pool.y))
        whole = max(parts, key=np.ndim)  # a model that could not be asked has NaN, no components
        for i, part in enumerate(parts):
            if part.ndim != whole.ndim:
                components = (1,) * (whole.ndim - part.ndim)
                parts[i] = np.broadcast_to(part.reshape(*part.shape, *components), whole.shape)
        part_of = dict(zip(self.models, parts, strict=True))
        count = len(self.design.member_MN)
        return stacks.Stack(
            [part_of.get(m) for m in range(count)],
            shape=(count, *whole.shape),
            dtype=np.result_type(*{part.dtype for part in parts}),
        )


def check_shapes(parts: Sequence[np.ndarray], paths: Sequence, *, views: int, examples: int):
    """Raises ValueError with the file whose answers [A,N,...] differ in shape from the others."""
    components = [part.shape[2:] for part in parts if part.ndim > 2]
    usual = max(components, key=components.count) if components else ()
    for part, path in zip(parts, paths, strict=True):
        if part.shape[:2] != (views, examples) or (part.ndim > 2 and part.shape[2:] != usual):
            error = ValueError(
                f"it holds an array of shape {list(part.shape)}, expected "
                f"{[views, examples, *usual]}"
            )
            raise ValueError(files.damaged(path, error))


def attack(
    attacks: Sequence[PlannedAttack],
    reader: SignalReader,
    *,
    task: tuple[int, int] | None = None,
    lines: bool = True,
    begin: Callable = nothing,
    pause: Callable = nothing,
) -> None:
    """Scores every target and shadow with every attack whose scores are not on disk.

    The scores are written with the digests of the files from which they were computed.

    Args:
      attacks: the planned attacks.
      reader: the measured signals.
      task: (i, n) scores with the attacks of task i of n, dealt out in turn.
      lines: prints progress also where there is no terminal, see progress.Progress.
      begin: called before the first file is written.
      pause: called after each attack and each model that an attack scores by itself; it may raise
        to end the run. What was scored is then on disk.
    """
    store, design = reader.store, reader.design
    if task is None or task[0] == 0:
        set_aside_scores(reader, begin=begin)
    elif other_failures(reader):
        raise ValueError(
            f"{store.attacks} holds scores of another set of failed models, which task 0 of "
            f"{task[1]} sets aside: start this task again after it."
        )
    attacks = jobs.share(attacks, task)
    progress = Progress(title="attack", total=len(attacks), unit="attack", lines=lines)
    fleets: dict[tuple, threat_model.FleetSignals] = {}
    digests: dict[str, str] = {}
    scored, membership = reader.scored_models, files.digest(design.member_MN)
    for done, planned in enumerate(attacks):
        name = planned.name
        progress.advance(min(done, 1), name)
        score_files, claim = store.attack(name), claim_of(planned, reader)
        files.check_claim(score_files.folder, claim, remedy=claim_remedy(score_files.folder))
        if score_files.scores.exists():
            pieces.discard(score_files.pieces)
            continue
        pause()
        if planned.behind not in fleets:
            same = [a for a in attacks if not planned.defense or a.behind == planned.behind]
            names = sorted({signal for a in same for signal in a.files})
            files_of = {s: f for a in same for s, f in a.files.items()} if planned.defense else {}
            shared = dataclasses.replace(planned, files={n: files_of.get(n, n) for n in names})
            fleets[planned.behind] = reader.fleet(shared)
        for signal in set(planned.signals) - set(digests):
            folder = store.answers.folder
            digests[signal] = inputs.of_signal(folder, signal, len(design.member_MN))
        made_from = dict(signals={signal: digests[signal] for signal in planned.signals})
        record = score_record(store, name) | made_from | dict(membership=membership)
        by_model = pieces.Pieces(
            score_files.pieces, made_from=record | claim, pause=pause, begin=begin
        )
        score_SN = scores(
            planned.attack, fleets[planned.behind], scored, planned.key, piece=by_model
        )
        finite_or_raise(score_SN, design.evaluated_MN, scored, name)
        begin()
        files.claim(score_files.folder, claim, remedy=claim_remedy(score_files.folder))
        kept = record_groups.compact(score_SN)
        files.write_npz(score_files.scores, record, score_TN=kept, models=np.asarray(scored))
        by_model.discard()
    progress.close()
    if fleets:
        count, targets = len(attacks), len(design.targets)
        jobs.say(
            f"attack: {count} attack{'s' * (count > 1)} on {targets} target{'s' * (targets > 1)}"
        )


def set_aside_scores(reader: SignalReader, *, begin: Callable = nothing) -> None:
    """Renames attack/ and report/ if their scores belong to another set of failed models."""
    store = reader.store
    if other_failures(reader):
        begin()
        for folder in (store.attacks, store.report.folder):
            moved = files.set_aside(folder)
            if moved:
                jobs.say(f"{folder.name} of another set of failed models is kept in {moved.name}/")


def other_failures(reader: SignalReader) -> bool:
    """Returns whether scores on disk belong to another set of failed models."""
    failed, attacked = sorted(reader.failed), reader.store.attacked()
    return any(files.read_json(a.claim, needs={}).get("failed", []) != failed for a in attacked)


def claim_remedy(folder) -> str:
    """Returns what a user can do about scores of another config."""
    return f"Give the attack another name in the config, or delete {folder} to run it again."


def score_record(store: Store, name: str) -> dict:
    """Returns the record that places the scores of one attack: its run and its name."""
    return dict(run=store.run, attack=name)


def claim_of(planned: PlannedAttack, reader: SignalReader) -> dict:
    """Returns what determines the scores of an attack, in addition to the signals.

    This is its config, the views, and who trained on what, with labels and columns.
    """
    section = without_defaults(planned.section) | dict(planned.attack.claimed)
    claim = dict(attack=section, query=reader.views)
    claim |= dict(models=len(reader.design.member_MN)) | reader.digests
    claim |= dict(scored=reader.scored_models)
    return claim | (dict(failed=sorted(reader.failed)) if reader.failed else {})


GENERAL = settings.defaults(settings.AttackSettings)


def own_fields(section: Mapping) -> dict:
    """Returns the fields of a section of config.attacks that only this attack has."""
    return {k: v for k, v in section.items() if k not in GENERAL}


def without_defaults(section: Mapping) -> dict:
    """Returns a section of config.attacks without the general fields that have their default."""
    return {k: v for k, v in section.items() if k not in GENERAL or v != GENERAL[k]}


def scores(
    attack: Attack,
    fleet: threat_model.FleetSignals,
    scored: Sequence[int],
    key,
    *,
    piece: Piece = unkept,
) -> np.ndarray:
    """Returns score_SN of the models `scored`.

    It is NaN on rows that are not evaluated, for targets without the shadows that the attack needs,
    and for shadows that cannot be attacked like targets (`attackable`); thresholds are then chosen
    on the other shadows.

    Args:
      attack: the attack.
      fleet: all that was measured.
      scored: the models to score.
      key: the key of the attack.
      piece: keeps the scores of each model that is scored by itself, see pipeline/pieces.py.
    """
    design = fleet.design
    score_SN = np.full((len(scored), design.member_MN.shape[1]), np.nan)
    needs_shadows = any(need in threat_model.SHADOW_NEEDS for need in attack.needs)
    reachable = [t for t in scored if not needs_shadows or design.shadow_MM[t].any()]
    reachable = [t for t in reachable if t in design.targets or attackable(attack, design, t)]
    if attack.score_all is not None and reachable and not design.balance:
        part = dataclasses.replace(design, targets=tuple(reachable))
        score_RN = attack.score_all(dataclasses.replace(fleet, design=part), key)
        score_SN[[scored.index(t) for t in reachable]] = score_RN
    else:
        for t in reachable:
            score_SN[scored.index(t)] = piece(
                f"{t:05d}",
                lambda t=t: np.asarray(
                    attack.score(fleet.evidence_against(t, attack.needs, attack.knows), key)
                ),
            )
    return np.where(design.evaluated_MN[list(scored)], score_SN, np.nan)


def attackable(attack: Attack, design: Design, t: int) -> bool:
    """Returns whether an attack has what it needs if shadow t is taken for a target.

    A shadow whose reference models trained on none of its scored rows, or on all of them, lacks a
    side.
    """
    evaluated_N, others = design.evaluated_MN[t], design.shadow_MM[t]
    inside_MN, outside_MN = design.member_MN[others], ~design.member_MN[others]
    # where shadows are hidden, the row with the fewest decides for all
    least, initial = (np.min, len(others)) if design.balance else (np.max, 0)
    for need, side_MN in (("shadow_in", inside_MN), ("shadow_out", outside_MN)):
        if need in attack.needs and not least(side_MN.sum(0)[evaluated_N], initial=initial):
            return False
    if "shadow_own" in attack.needs:
        rows_MN = design.evaluated_MN[others]
        if min(int((side_MN & rows_MN).sum()) for side_MN in (inside_MN, outside_MN)) < FEWEST:
            return False
    sides = (design.member_MN[t], ~design.member_MN[t])
    counts = [int((side_N & evaluated_N).sum()) for side_N in sides]
    return "member" not in attack.needs or min(counts) >= 2 * FEWEST


def finite_or_raise(score_SN, evaluated_MN, scored: Sequence[int], name: str) -> None:
    """Raises ValueError with the place of a NaN in the score of an evaluated example.

    Such a NaN is a fault of the attack or of its inputs, and ends the run.
    """
    nan_SN = np.isnan(score_SN)
    bad = nan_SN & evaluated_MN[list(scored)] & ~nan_SN.all(1, keepdims=True)
    if bad.any():
        t, n = np.argwhere(bad)[0]
        raise ValueError(
            f"attack {name!r} scores example {n} of model {scored[t]} as NaN ({int(bad.sum())} "
            "such scores). The answers that it reads are finite, so this is a fault of the attack, "
            "not of the model: run without this attack, the others do not depend on it."
        )


def read_scores(planned: PlannedAttack, reader: SignalReader) -> np.ndarray:
    """Returns score_MN over all models of the design, NaN where an attack has no score.

    Large ones stay in their file (`stacks.Stored`).

    Raises:
      FileNotFoundError: the attack has no scores on disk.
      ValueError: the file is damaged or belongs to another design or config.
    """
    score_files, scored = reader.store.attack(planned.name), reader.scored_models
    if not score_files.scores.exists():
        raise FileNotFoundError(
            f"{score_files.scores} does not exist; run the attack stage first "
            "(stages_wanted=attack,report)."
        )
    claim = claim_of(planned, reader)
    files.check_claim(score_files.folder, claim, remedy=claim_remedy(score_files.folder))
    record = score_record(reader.store, planned.name)
    stored = files.map_npz(score_files.scores, record=record, least=stacks.LARGE // 8)
    lacking = [key for key in ("models", "score_TN") if key not in stored]
    fits = not lacking and stored["models"].tolist() == list(scored)
    if fits:
        score_SN, expected = stored["score_TN"], (len(scored), reader.design.member_MN.shape[1])
        fits = tuple(score_SN.shape) == expected and score_SN.dtype.kind == "f"
    if not fits:
        shapes = {key: array.shape for key, array in stored.items()}
        message = f"it does not hold the scores of the models of this design; it has {shapes}"
        raise ValueError(files.damaged(score_files.scores, ValueError(message)))
    if list(scored) == list(range(len(reader.design.member_MN))):
        return stored["score_TN"]
    score_MN = np.full(reader.design.member_MN.shape, np.nan, stored["score_TN"].dtype)
    score_MN[list(scored)] = stored["score_TN"]
    return score_MN


def asked_rows(name: str, attacks: Sequence[PlannedAttack], design: Design) -> np.ndarray:
    """Returns [M,N]: the examples about which each model is asked for an interactive signal.

    These are the examples that some attack can read:

    - the evaluated rows of the model;
    - those of all models, if an attack looks at shadows on the target's rows or no attack reads the
      signal;
    - the population, if an attack reads it.

    Behind a defense of the target only, no other model is asked.
    """

    def same(signal: str) -> str:
        return registry.identity("signals", signal)

    readers = [a for a in attacks if same(name) in map(same, a.signals)]
    needs = [set(a.attack.needs) for a in readers]
    asked_MN = design.evaluated_MN.copy()
    if not readers or any({"shadow_in", "shadow_out"} & need for need in needs):
        asked_MN |= design.evaluated_MN.any(0)
    if any("population" in need for need in needs):
        asked_MN |= design.population_N
    if "@" in name and not any(a.adaptive for a in readers):
        asked_MN[[m for m in range(len(asked_MN)) if m not in design.targets]] = False
    return asked_MN


def labels_only(names: Sequence[str], signals: Mapping[str, Signal | None]) -> bool:
    """Returns whether an attack with these signals sees predicted labels and nothing else."""
    chosen = [signals.get(name) for name in names]
    return bool(chosen) and all(s is not None and s.access == "labels" for s in chosen)
