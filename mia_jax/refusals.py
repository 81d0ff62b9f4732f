"""What a config asks for and cannot have, refused with the remedy before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax

from mia_jax import answers, checks, configuration, stages, views
from mia_jax.data import augment
from mia_jax.training.trajectory import SIGNAL as TRAJECTORY
from mia_jax.types import Attack, Design, Pool, Signal


def check_fields(config: Mapping) -> None:
    """ValueError for a field of query, report or run that cannot work, before anything is trained."""
    query, report, run = config["query"], config["report"], config["run"]
    configuration.one_kind(learner=config["learner"], model=config["model"])
    if not query["views"] or query["views"][0] != "identity":
        raise ValueError(
            f"query.views={tuple(query['views'])} must begin with 'identity': accuracies and the gap attack are of the unchanged example."
        )
    checks.at_least(1, **{f"query.{field}": query[field] for field in ("batch_size", "ask_batch_size")})
    if run["chunk"] not in stages.AUTO:
        if not isinstance(run["chunk"], int):
            raise ValueError(f"run.chunk={run['chunk']!r} must be a whole number of models >= 1, or 'auto' to have the fastest measured.")
        checks.at_least(1, **{"run.chunk": run["chunk"]})
    checks.at_least(0, **{f"run.{k}": run[k] for k in ("lanes", "devices", "query_chunk", "checkpoint_every", "memory_bytes", "retries")})
    check_report(report, config["attacks"])
    if report["epochs"] and not config["learner"]["snapshots"]:
        example = (1, config["learner"].get("epochs", 10))
        raise ValueError(f"report.epochs={tuple(report['epochs'])} needs learner.snapshots, the epochs to look at, for example {example}.")


def check_report(report: Mapping, attacks: Mapping) -> None:
    """ValueError for a field of config.report that cannot work."""
    checks.at_least(40, **{"report.draws": report["draws"]})
    checks.fraction(
        closed="neither", **{"report.level": report["level"]}, **{"report.fprs": max(report["fprs"]), "smallest report.fprs": min(report["fprs"])}
    )
    checks.positive(**{"report.ppv_ratio": report["ppv_ratio"]})
    for field in ("shadow_curve", "records", "epochs"):
        wanted = report[field].split(",") if isinstance(report[field], str) else report[field] or ()
        for name in set(wanted) - ({"lira", "lira_shrunk"} if field == "shadow_curve" else set()):
            checks.one_of(attacks, **{f"report.{field}": name})


def check_images(config: Mapping, *, pool: Pool) -> None:
    """ValueError if a query view or a training augmentation cannot be applied to these examples."""
    x, keys = pool.x[:1], jax.random.split(jax.random.key(0), 1)
    for view in augment.views(config["query"]["views"]):
        view(x)
    if config["learner"].get("augment"):
        augment.augmentation(tuple(config["learner"]["augment"]))(x, keys)


def check_attacks(attacks: Mapping[str, Attack], *, design: Design) -> None:
    """ValueError with the reason of every attack that this design cannot carry."""
    fleet = views.Fleet(design=design, signal={}, num_classes=0)
    refusals = [text for name, attack in attacks.items() if (text := fleet.refuse(attack, name))]
    if refusals:
        raise ValueError("\n".join(refusals))


def check_snapshots(learner: Mapping, attacks: Mapping[str, Attack]) -> None:
    """ValueError unless learner.snapshots are epochs of the training, and there for the attacks that need them."""
    snapshots, epochs = tuple(learner["snapshots"]), learner.get("epochs", 0)
    if any(not isinstance(e, int) or not 1 <= e <= epochs for e in snapshots) or list(snapshots) != sorted(set(snapshots)):
        raise ValueError(f"learner.snapshots={snapshots} must be rising epochs in 1..{epochs}.")
    needing = [name for name, attack in attacks.items() if TRAJECTORY in attack.needs]
    if needing and not snapshots:
        raise ValueError(f"attack {needing[0]!r} needs the losses at several epochs: set learner.snapshots, for example (5, 10, {epochs}).")


def check_epochs(names: Sequence[str], attacks: Mapping[str, Attack], signals: Mapping[str, Signal], *, target: bool) -> None:
    """ValueError if an attack of config.report.epochs reads what snapshots are not asked: questions of its own, trajectories, brought answers."""
    if names and target:
        raise ValueError(f"report.epochs={tuple(names)}: a target of your own has no epochs; leave it empty.")
    passes = {name for name, signal in signals.items() if signal.ask is None}
    for name in names:
        own = answers.asked_signals({name: attacks[name]}) - passes
        if own:
            raise ValueError(
                f"report.epochs: attack {name!r} reads {', '.join(sorted(own))}, which snapshots are not asked; attacks on "
                f"{', '.join(sorted(n for n in passes if '@' not in n))} can be repeated."
            )
