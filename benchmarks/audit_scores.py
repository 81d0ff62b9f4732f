"""Compares black-box scores of canaries: which one lets an audit of epsilon show most?

    python -m benchmarks.audit_scores [--quick] [--models 12] [--workdir runs/audit_scores]

Per case, private models (epsilon 8 at delta 1e-5, and none) are trained on scikit-learn's digits
with 600 canaries, and every one is audited alone by each score. Scores that need other rows are
fitted on population rows, which no model saw and no coin decides about, so that no score can see
the coins: `level` is the share of bounds above 0 where the coins were drawn anew after the scores
were computed (at most 0.05 but for chance).

    threshold_loss      the loss
    threshold_logit     the rescaled logit
    quantile            quantile regression of the rescaled logit on x (as arXiv:2506.15349 audits)
    quantile_label      on the label
    quantile_both       on x and the label

Per case and score a line of JSON: the mean `auc` over models, the median of the bounds by
`rank_sum` and `one_run` (5% guessed IN and 5% OUT), and `level`.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks import audit_power
from mia_jax import configuration
from mia_jax.metrics import roc
from mia_jax.pipeline import run
from mia_jax.privacy import audit, audit_sums
from mia_jax.runtime import files
from mia_jax.runtime.store import Store

CANARIES, DELTA, ALPHA = 600, 1e-5, 0.05
REDRAWN = 20  # per model
QUANTILE = dict(name="quantile", signal="rescaled_logit")
ATTACKS = dict(
    threshold_loss=dict(name="threshold", signal="loss"),
    threshold_logit=dict(name="threshold", signal="rescaled_logit"),
    quantile=QUANTILE | dict(features=("x",)),
    quantile_label=QUANTILE | dict(features=("label",)),
    quantile_both=QUANTILE | dict(features=("x", "label")),
)
PRIVATE = dict(
    optimizer="sgd",
    learning_rate=2.0,
    batch_size=200,
    epochs=20,
    gradient="private",
    privacy=dict(clip_norm=1.0, noise_multiplier=None, epsilon=8.0, delta=DELTA),
)
PLAIN = dict(optimizer="adam", learning_rate=3e-3, batch_size=100, epochs=40)
CASES = {
    f"{kind}_{name}": (kind, learner)
    for name, learner in (("eps8", PRIVATE), ("plain", PLAIN))
    for kind in ("natural", "mislabeled", "out_of_distribution")
}


def scores(case: str, *, models: int, folder: pathlib.Path) -> tuple[dict, np.ndarray]:
    """Returns ({attack: scores [M,C]}, coins [M,C]) of the models of a case, trained if needed."""
    kind, learner = CASES[case]
    config = configuration.complete(
        data=dict(name="digits", flat=True, canaries=dict(kind=kind, count=CANARIES)),
        design=dict(name="canaries", models=models, population=0.3),
        model=dict(name="mlp", widths=(64,)),
        learner=learner,
        attacks=ATTACKS,
        report=dict(draws=40, figures=False, shadow_curve=(), slices=(), records=()),
        run=dict(chunk=models),
    )
    run.run(config, workdir_path=folder / case, stages_wanted=("train", "query", "attack"))
    store = Store(folder / case)
    held = files.read_npz(store.membership)
    rows = np.flatnonzero(held["evaluated_MN"][0])
    score = {}
    for name in ATTACKS:
        of_attack = files.read_npz(store.attack(name).scores)
        score[name] = of_attack["score_TN"][np.argsort(of_attack["models"])][:, rows]
    return score, held["member_MN"][:, rows]


def bound(score_C: np.ndarray, inside_C: np.ndarray, method: str) -> float:
    """Returns the bound of one model."""
    counts = audit_power.statistics(score_C, inside_C, method)
    return audit.one_run(counts, delta=DELTA, alpha=ALPHA, method=method)


def measured(case: str, score: Mapping[str, np.ndarray], inside_MC: np.ndarray) -> list[dict]:
    """Returns a row per score."""
    rng, rows = np.random.default_rng(0), []
    for name, score_MC in score.items():
        pairs = list(zip(score_MC, inside_MC, strict=True))
        redrawn = [
            audit_sums.p_value(
                audit_sums.sums(score_C, rng.random(score_C.size) < 0.5), mu=0.0, method="rank_sum"
            )
            for score_C in score_MC
            for _ in range(REDRAWN)
        ]
        numbers = dict(
            auc=np.mean([roc.auc(roc.roc(*pair)) for pair in pairs]),
            rank_sum=np.median([bound(*pair, "rank_sum") for pair in pairs]),
            one_run=np.median([bound(*pair, "one_run") for pair in pairs]),
            level=np.mean(np.array(redrawn) <= ALPHA),
        )
        rounded = {key: round(float(value), 3) for key, value in numbers.items()}
        rows.append(dict(case=case, score=name, **rounded, models=len(pairs)))
    return rows


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="3 models of each case")
    made.add_argument("--models", type=int, default=12, help="models per case")
    made.add_argument("--cases", default=",".join(CASES))
    made.add_argument("--workdir", default="runs/audit_scores")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and prints its tables and lines."""
    args, lines = parser().parse_args(argv), []
    models = 3 if args.quick else args.models
    unknown = sorted(set(args.cases.split(",")) - set(CASES))
    if unknown:
        raise SystemExit(f"--cases: {unknown[0]!r} is not one of {', '.join(CASES)}.")
    for case in args.cases.split(","):
        rows = measured(case, *scores(case, models=models, folder=pathlib.Path(args.workdir)))
        lines += rows
        for row in rows:
            print(
                f"{case:<26}{row['score']:<18}AUC {row['auc']:.3f}   rank_sum {row['rank_sum']:.2f}"
                f"   one_run {row['one_run']:.2f}   level {row['level']:.3f}",
                flush=True,
            )
    for row in lines:
        print(json.dumps(dict(benchmark="audit_scores") | row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
