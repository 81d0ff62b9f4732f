"""Makes the pool, the design, the model and the learner of a config's sections."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax import checks, configuration, registry
from mia_jax.configuration import settings
from mia_jax.configuration.settings import DataSettings, LearnerSettings
from mia_jax.data import _canaries as canaries
from mia_jax.data import _pool as pools
from mia_jax.learners import stopping
from mia_jax.pipeline import validate
from mia_jax.pipeline.train import VALIDATION
from mia_jax.privacy import canary_scores, dirac
from mia_jax.runtime import files, precision
from mia_jax.runtime.store import Store
from mia_jax.types import Design, Learner, Model, Pool

VARIANT = "variant:"  # learner.init_from of a grid: another variant, 'variant:plain'


def make(kind: str, section: Mapping, **kwargs):
    """Returns what the plug-in of a config section makes; an external attack is made `lenient`.

    Args:
      kind: the kind of plug-in, a folder of the package.
      section: {'name': ..., field: value} of the config.
      **kwargs: what the maker receives in addition.
    """
    name, fields = section["name"], {k: v for k, v in section.items() if k != "name"}
    made = registry.make(kind, name, fields, **kwargs)
    return precision.lenient(made) if kind == "attacks" and registry.outside(kind, name) else made


def external_model(made, *, name: str) -> Model:
    """Returns the Model of an external module, whose `make` may return a plain flax module."""
    from mia_jax.models import _linen  # flax is loaded where there is a model

    return _linen.taken(made, name=name)


def load_pool(section: Mapping) -> tuple[Pool, dict]:
    """Returns the pool of config.data and the counts of its duplicates.

    Canaries are inserted, and duplicates are dropped, where the section asks for it.

    Raises:
      ValueError: a file is not UTF-8, or a field cannot work.
    """
    fields = {k: v for k, v in section.items() if k not in settings.names(DataSettings)}
    try:
        with precision.as_the_user():
            pool = make("data", fields)
    except UnicodeDecodeError as error:
        names = ", ".join(
            str(fields[field]) for field in ("path", "label_path", "folder") if fields.get(field)
        )
        raise ValueError(
            f"data ({fields['name']}): {names} is not {error.encoding.upper()} ({error.reason} at "
            f"byte {error.start:,}). Save it as UTF-8, for example "
            "with `iconv -f latin1 -t utf-8 old.csv > new.csv`."
        ) from error
    if section["drop_duplicates"]:
        pool = pools.drop_duplicates(pool)
    if section["canaries"] is not None:
        pool = registry.call(canaries.insert, "data.canaries", section["canaries"], pool=pool)
    return pool, pools.duplicates(pool)


def make_design(section: Mapping, *, pool: Pool, seed: int) -> Design:
    """Returns the design of config.design over this pool."""
    marked = {f"given_{name}_N": pool.columns.get(name) for name in ("population", "canary")}
    checks.in_memory(
        f"design.models={section.get('models')}: the memberships",
        float(section.get("models") or 0) * len(pool.y),
    )
    labels_N = pool.y if pool.task.has_classes else None
    return make(
        "designs", section, num_examples=len(pool.y), seed=seed, labels_N=labels_N, **marked
    )


def takes_objective(section: Mapping) -> bool:
    """Returns whether the learning rule of config.learner minimizes an objective that is given."""
    return "loss" in registry.keywords("learners", section["name"])


def dirac_canaries(
    data: Mapping,
    learner: Mapping,
    attacks: Mapping[str, Mapping],
    *,
    pool: Pool,
    design: Design,
) -> dirac.Canaries | None:
    """Returns the Dirac canaries of data.canaries.kind='dirac'; None for other kinds.

    Args:
      data: config.data.
      learner: config.learner.
      attacks: config.attacks.
      pool: the examples.
      design: who trains on what.

    Raises:
      ValueError: the learner or the design cannot have them, with the remedy.
    """
    inserted, kind = data.get("canaries"), "data.canaries.kind='dirac'"
    if not inserted or inserted.get("kind") != "dirac":
        for name, attack in attacks.items():
            if attack.get("signal") in dirac.SIGNALS[2:]:
                raise ValueError(
                    f"attack {name!r}: only Dirac canaries have the signal {attack['signal']!r}; "
                    f"set {kind} or use one of {list(canary_scores.SIGNALS)}."
                )
        return None
    able = "dirac" in getattr(registry.load("learners", learner["name"]), "CANARIES", ())
    if not able or learner.get("gradient") != "private":
        raise ValueError(
            f"{kind} canaries are parameters that only the clipped gradients of private training "
            "move; they need learner.gradient='private', and the learning rule "
            f"{learner['name']!r} with gradient={learner.get('gradient')!r} has none. Every "
            "learner can have canaries of other kinds, such as 'mislabeled'."
        )
    if design.coin_N is None:
        raise ValueError(
            f"{kind} needs coins that decide about the canaries, and the design {design.name!r} "
            "has none; use design.name='canaries'."
        )
    if not learner["watch"]:
        raise ValueError(
            f"{kind} canaries are seen in what training releases, which is kept only with "
            "learner.watch=True."
        )
    if learner.get("adapter_rank"):
        raise ValueError(
            f"{kind} with learner.adapter_rank={learner['adapter_rank']}: the tests of such "
            "canaries are about the parameters of the net itself; leave adapter_rank at 0."
        )
    privacy = learner.get("privacy") or {}
    dirac.check_clipping(privacy.get("clipping", "flat"))
    for field, usual in (("user", ""), ("microbatch", 1)):
        if privacy.get(field, usual) != usual:
            raise ValueError(
                f"{kind} canaries are single examples, and with learner.privacy.{field}="
                f"{privacy[field]!r} several rows are clipped together; leave it at {usual!r}."
            )
    return dirac.canaries(
        np.flatnonzero(design.coin_N >= 0),
        num_examples=len(pool.y),
        norm=dirac.STRENGTH * privacy.get("clip_norm", 1.0),
    )


def make_learner(
    section: Mapping,
    *,
    model: Model,
    sample: Pool | None = None,
    marked: dirac.Canaries | None = None,
    **rows,
) -> Learner:
    """Returns the learner of config.learner, with its objective and its stopping rule.

    Args:
      section: config.learner.
      model: the network.
      sample: the pool with its first few examples only, and all columns.
      marked: the Dirac canaries, for which `model` has a table; None without.
      **rows: what the learner may know about the models' rows: num_rows, num_extra, padded,
          labels_N.

    Raises:
      ValueError: fields that do not go together, with the remedy.
    """
    checks.one_of(VALIDATION, validation=section["validation"])
    asked, model = model, precision.computing(model, section["precision"])
    objective = section["objective"]
    objective = dict(name=objective) if isinstance(objective, str) else objective
    if takes_objective(section):
        loss = make("objectives", objective, model=model)
        if sample is not None:
            axes = getattr(registry.load("learners", section["name"]), "ROWS", ())
            validate.check_loss(loss, model=model, pool=sample, name=objective["name"], rows=axes)
        if marked is not None:
            loss = dirac.with_canaries(loss, marked)
    elif objective["name"] == configuration.OWN:
        loss = None
    else:
        raise ValueError(
            f"learner.objective={objective['name']!r}: the learning rule {section['name']!r} has "
            "an objective of its own; leave it out."
        )
    stop = (
        None
        if section["stop"] is None
        else registry.call(stopping.make, "learner.stop", section["stop"])
    )
    if (
        stop is not None
        and section.get("gradient") == "private"
        and section["validation"] != "population"
    ):
        raise ValueError(
            f"learner.validation={section['validation']!r}: a stopping rule of private training "
            "may use population rows only; epsilon does not cover what it learns from "
            "other rows. Set learner.validation='population' "
            "(design.population > 0), or learner.stop=None."
        )
    if (section.get("privacy") or {}).get("clip_norm") == np.inf:
        raise ValueError(
            "learner.privacy.clip_norm=inf: a config holds finite numbers; clip_norm=1e9 with "
            "noise_multiplier=0 clips nothing."
        )
    check_clipping(section)
    fields = {k: v for k, v in section.items() if k not in settings.names(LearnerSettings)}
    given = dict(sample=sample, initial=initial_parameters(section["init_from"]))
    given |= dict(shards=section["shards"])
    if given["initial"] and "initial" not in registry.keywords("learners", section["name"]):
        raise ValueError(
            f"learner.init_from: the learning rule {section['name']!r} has no such start."
        )
    check_shards(section)
    common = dict(stopping=stop, **rows, **given, **({} if loss is None else dict(loss=loss)))
    learner = make("learners", fields, model=model, **common)
    if model is asked:
        return learner
    # the model that is asked after the training computes at query.precision
    if learner.model is not model:
        asked = make("learners", fields, model=asked, **common).model
    return learner._replace(model=asked)


def check_shards(section: Mapping) -> None:
    """Raises ValueError if the batches of the learning rule cannot be cut into shards."""
    name, shards = section["name"], section["shards"]
    if shards == 1 or "shards" in registry.keywords("learners", name):
        return
    why = getattr(registry.load("learners", name), "WITHOUT_SHARDS", "its `make` has no `shards`")
    able = [
        other
        for other in registry.names("learners")
        if "shards" in registry.keywords("learners", other)
    ]
    raise ValueError(
        f"learner.shards={shards}: the learning rule {name!r} does not cut its batches into "
        f"shards ({why}); {' and '.join(able)} do. Leave learner.shards at 1."
    )


def check_clipping(section: Mapping) -> None:
    """Raises ValueError if norms and sum of clipped gradients would be those of unlike gradients.

    The second pass of 'tapped' sums gradients that were weighted before they were rounded.
    """
    method = (section.get("privacy") or {}).get("method", "auto")
    if section["precision"] == "bfloat16" and method == "tapped":
        raise ValueError(
            "learner.precision='bfloat16' does not go with privacy.method='tapped': its second "
            "pass rounds gradients after they were scaled to the clip norm, which they may then "
            "exceed. Use method='auto'."
        )


def watched(
    learner: Learner,
    section: Mapping,
    attacks: Mapping[str, Mapping],
    *,
    model: Model,
    pool: Pool,
    design: Design,
    marked: dirac.Canaries | None = None,
) -> Learner:
    """Returns the learner, with learner.watch one that also scores the canaries in training.

    It then records how the gradients of the canaries align with the updates
    (privacy/canary_scores.py), or what is released of Dirac canaries (privacy/dirac.py).

    Args:
      learner: the learner.
      section: config.learner.
      attacks: config.attacks.
      model: the network.
      pool: the examples.
      design: who trains on what.
      marked: the Dirac canaries; None without.

    Raises:
      ValueError: an attack needs these scores and learner.watch is off, or they cannot be computed.
    """
    asking = [name for name, attack in attacks.items() if attack.get("signal") in dirac.SIGNALS]
    if not section["watch"]:
        if asking:
            raise ValueError(
                f"attack {asking[0]!r} needs the updates of the training, which are kept only with "
                "learner.watch=True."
            )
        return learner
    if design.coin_N is None:
        raise ValueError(
            f"learner.watch keeps scores of canaries, and the design {design.name!r} has none; use "
            "design.name='canaries'."
        )
    objective = section["objective"]
    objective = dict(name=objective) if isinstance(objective, str) else objective
    if not takes_objective(section):
        raise ValueError(
            f"learner.watch needs a per-example loss, and the learning rule {section['name']!r} "
            "has none."
        )
    clip_norm = (
        (section.get("privacy") or {}).get("clip_norm", np.inf)
        if section.get("gradient") == "private"
        else np.inf
    )
    if marked is not None:
        return dirac.watched(learner, marked, size=dirac_size(section, marked, model, pool))
    rows = np.flatnonzero(design.coin_N >= 0)
    computing = precision.computing(model, section["precision"])
    return canary_scores.watched(
        learner,
        loss=make("objectives", objective, model=computing),
        x=pool.x[rows],
        y=pool.y[rows],
        clip_norm=clip_norm,
    )


def dirac_size(section: Mapping, marked: dirac.Canaries, model: Model, pool: Pool) -> float:
    """Returns the norm of a Dirac canary's clipped gradient under config.learner."""
    privacy = section.get("privacy") or {}
    pattern = dirac.trained(section.get("trainable", ""))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(pool.x[:1]))["params"]
    return dirac.size_of(
        shapes,
        marked,
        clip=privacy.get("clipping", "flat"),
        clip_norm=privacy.get("clip_norm", 1.0),
        trainable=pattern,
    )


def release_size(
    data: Mapping,
    learner: Mapping,
    attacks: Mapping[str, Mapping],
    *,
    model: Model,
    pool: Pool,
    design: Design,
) -> float | None:
    """Returns the norm of a Dirac canary's clipped gradient; None without such canaries.

    Args:
      data: config.data.
      learner: config.learner.
      attacks: config.attacks.
      model: the network, with the table of the canaries if there are some.
      pool: the examples.
      design: who trains on what.
    """
    marked = dirac_canaries(data, learner, attacks, pool=pool, design=design)
    return None if marked is None else dirac_size(learner, marked, model, pool)


def initial_parameters(path: str) -> dict[str, np.ndarray]:
    """Returns {path: array} of the parameters of a model of another run.

    Args:
      path: 'runs/pretrained' (its model 0), 'runs/pretrained:3' (its model 3), or '' for {}.

    Raises:
      FileNotFoundError: the workdir has no such model.
    """
    if not path:
        return {}
    if path.startswith(VARIANT):
        raise ValueError(
            f"learner.init_from={path!r} is a variant of a grid: run the whole grid, or name the "
            "workdir of a finished run."
        )
    folder, _, number = path.partition(":")
    file = Store(pathlib.Path(folder).expanduser()).train.model(int(number or 0))
    if not file.exists():
        raise FileNotFoundError(
            f"learner.init_from={path!r}: {file} does not exist; name the workdir of a finished "
            "run, or workdir:model."
        )
    start = "variables/params/"
    return {
        k.removeprefix(start): v for k, v in files.read_npz(file).items() if k.startswith(start)
    }


def training_notes(section: Mapping, *, num_rows: int) -> list[str]:
    """Returns notes about values of config.learner that may be mistakes."""
    return validate.training_notes(
        epochs=section.get("epochs"),
        batch_size=section.get("batch_size"),
        in_pairs=section.get("pairs") is not None,
        num_rows=num_rows,
    )


def scored_canaries(section: Mapping, *, design: Design, pool: Pool) -> dict | None:
    """Returns {kind, count} of the canaries if only canaries are scored, else None.

    Args:
      section: config.data.
      design: who trains on what.
      pool: the examples.
    """
    if design.coin_N is None or design.name != "canaries":
        return None
    inserted = section.get("canaries")
    kind = "marked" if "canary" in pool.columns else "natural"
    kind = inserted.get("kind", "mislabeled") if inserted else kind
    return dict(kind=kind, count=int((design.coin_N >= 0).sum()))
