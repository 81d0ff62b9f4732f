"""Compares LiRA's variance rules at several numbers of shadow models, on MLPs on three data sets.

    python -m benchmarks.lira_variance [--quick] [--workdir runs/lira_variance]
        [--data digits,breast_cancer,fashion_mnist] [--seeds 3]

For each data set and seed, 64 MLPs are trained on complementary halves. The fleet is then cut into
smaller fleets of 4, 8, 16, 32 and 64 models (1, 3, 7, 15 and 31 shadow models per side), in which
every model is a target in turn, so that nearly all 64 models of each seed stay targets at every
size. The rules 'per_example', 'pooled' and 'shrunk' score the same models, online and offline
(log_cdf), and are compared by paired crossed intervals of the difference in AUC and in TPR at 1%
FPR. In complementary halves every example has the same number of shadow models per side, so a rule
that switches from one variance to another at k shadow models per side equals one of these columns
at each size.

Training is resumable: the same command continues. Results are written to WORKDIR/lira_variance.json
and WORKDIR/lira_variance.md. Fashion-MNIST is Debian's package dataset-fashion-mnist (its first
2,000 images are used).
"""

from __future__ import annotations

import argparse
import pathlib

import jax
import numpy as np

from mia_jax import configuration, registry
from mia_jax.measures import shadow_curve
from mia_jax.metrics import bootstrap, comparisons, summary
from mia_jax.pipeline import build, run
from mia_jax.query import forward
from mia_jax.runtime import files
from mia_jax.threat_model import FleetSignals

SIGNAL, FPR = "rescaled_logit", 0.01
SIZES = (4, 8, 16, 32, 64)
RULES = ("per_example", "pooled", "shrunk")
MODES = ("online", "offline")
REVERSED = dict(value="value", low="high", high="low")
DATA = dict(
    digits=dict(data=dict(name="digits", flat=True), learning_rate=3e-3, epochs=100),
    breast_cancer=dict(
        data=dict(name="breast_cancer", standardize=True), learning_rate=3e-3, epochs=100
    ),
    fashion_mnist=dict(data=dict(name="idx", examples=2000), learning_rate=1e-3, epochs=50),
)


def config_of(name: str, *, models: int, epochs: int | None = None):
    """Returns the config of a data set's fleet: an MLP with one hidden layer of 256 units.

    It is the net of the quickstart.
    """
    chosen = DATA[name]
    return configuration.complete(
        data=dict(chosen["data"]),
        design=dict(name="halves", models=models, population=0.1),
        model=dict(name="mlp", widths=(256,)),
        learner=dict(
            optimizer="adam",
            learning_rate=chosen["learning_rate"],
            batch_size=32,
            epochs=epochs or chosen["epochs"],
        ),
        attacks=dict(lira=dict()),
        run=dict(chunk=8),
    )


def fleet_of(
    name: str, *, models: int, seed: int, epochs: int | None, folder: pathlib.Path
) -> FleetSignals:
    """Trains what is missing of one fleet and loads its signals."""
    config = config_of(name, models=models, epochs=epochs)
    config.seed = seed
    run.run(config, workdir_path=folder, stages_wanted=("train", "query"))
    audit = build.build(run.plain(config), seed=seed)
    signal = forward.load(folder / "signal", SIGNAL, range(models))
    return FleetSignals(
        design=audit.design, signal={SIGNAL: signal}, num_classes=audit.pool.num_classes
    )


def compared(fleets: list[FleetSignals], *, size: int, mode: str, draws: int) -> list[dict]:
    """Returns rows of AUC and TPR of each rule, and of their paired differences.

    They are over the targets of all fleets, cut to `size` models.
    """
    parts = [part for fleet in fleets for part in shadow_curve.cut(fleet, size - 2)]
    attacks = {
        rule: registry.make("attacks", "lira", dict(mode=mode, variance=rule)) for rule in RULES
    }
    key = jax.random.key(0)
    scores = {
        rule: np.concatenate([attack.score_all(part, key) for part in parts])
        for rule, attack in attacks.items()
    }
    member_TN, evaluated_TN = (
        np.concatenate([getattr(p.design, field) for p in parts])
        for field in ("member_MN", "evaluated_MN")
    )
    unit_T = np.concatenate([p.design.unit_M + 10**4 * i for i, p in enumerate(parts)])
    drawn, kept = bootstrap.make(member_TN.shape[1], unit_T, draws=draws, seed=0), {}
    rows = summary.rows(
        {rule: dict(score_TN=score_TN) for rule, score_TN in scores.items()},
        member_TN, evaluated_TN, unit_T=unit_T, draws=drawn, fprs=(FPR,), keep=kept, detail=0,
    )  # fmt: skip
    chosen = [r for r in rows if r["target"] is None and r["metric"] in ("auc", f"tpr@{FPR:g}")]
    chosen += [r for r in comparisons.rows(kept, list(RULES)) if r["target"] is None]
    fields = ("attack", "versus", "metric", "value", "low", "high")
    return [
        {k: r[k] for k in fields if k in r}
        | dict(models=size, per_side=size // 2 - 1, mode=mode, targets=len(unit_T))
        for r in chosen
    ]


def table(rows: list[dict]) -> str:
    """Returns Markdown with a line per data set, mode and size."""
    lines = [
        "| data | mode | models | shadows per side | per example | pooled | shrunk "
        "| pooled − per example | shrunk − pooled | shrunk − per example |",
        "|:--|:--|--:|--:|:--|:--|:--|:--|:--|:--|",
    ]
    for metric, scale, digits in ((f"tpr@{FPR:g}", 100, 1), ("auc", 1, 3)):
        lines.append(f"| **{'AUC' if metric == 'auc' else 'TPR at 1% FPR, percent'}** |" + " |" * 9)
        keys = dict.fromkeys((r["data"], r["mode"], r["models"], r["per_side"]) for r in rows)
        for data, mode, models, per_side in keys:
            metric_rows = [
                r
                for r in rows
                if (r["data"], r["mode"], r["models"], r["metric"]) == (data, mode, models, metric)
            ]
            row_of = {(r["attack"], r.get("versus")): r for r in metric_rows}
            cells = [_cell(row_of[rule, None], scale, digits) for rule in RULES]
            for new, old in (
                ("pooled", "per_example"),
                ("shrunk", "pooled"),
                ("shrunk", "per_example"),
            ):
                row = row_of[old, new]  # comparisons.rows has the earlier rule minus the later one
                cells.append(
                    _cell(
                        {k: None if row[j] is None else -row[j] for k, j in REVERSED.items()},
                        scale,
                        digits,
                        signed=True,
                    )
                )
            lines.append(f"| {data} | {mode} | {models} | {per_side} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(row: dict, scale: float, digits: int, signed: bool = False) -> str:
    value, low, high = (
        None if row[k] is None else row[k] * scale + 0.0 for k in ("value", "low", "high")
    )
    sign = "+" if signed else ""
    if low is None:
        return f"{value:{sign}.{digits}f}"
    text = f"{value:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
    return f"**{text}**" if signed and not low <= 0 <= high else text


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="8 models, 2 epochs, one seed of digits: shows that it works, no more",
    )
    parser.add_argument(
        "--workdir",
        type=pathlib.Path,
        default=pathlib.Path("runs/lira_variance"),
        help="fleets, results and table",
    )
    parser.add_argument("--data", default=",".join(DATA), help=f"any of {', '.join(DATA)}")
    parser.add_argument("--seeds", type=int, default=3, help="fleets per data set")
    args = parser.parse_args(argv)
    names = args.data.split(",")
    for name in names:
        if name not in DATA:
            parser.error(f"there is no data set {name!r}; known: {', '.join(DATA)}")
    models, epochs, seeds, sizes, draws = (
        (8, 2, 1, (4, 8), 40) if args.quick else (64, None, args.seeds, SIZES, 400)
    )
    names = ["digits"] if args.quick else names
    root, rows = args.workdir / ("quick" if args.quick else "full"), []
    for seed in range(seeds):  # all data sets have their first fleet early
        for name in names:
            fleet_of(
                name, models=models, seed=seed, epochs=epochs, folder=root / name / f"seed-{seed}"
            )
    for name in names:
        fleets = [
            fleet_of(name, models=models, seed=s, epochs=epochs, folder=root / name / f"seed-{s}")
            for s in range(seeds)
        ]
        for mode in MODES:
            for size in sizes:
                rows += [
                    dict(data=name) | row
                    for row in compared(fleets, size=size, mode=mode, draws=draws)
                ]
    text = table(rows)
    files.write_json(args.workdir / "lira_variance.json", dict(rows=rows, seeds=seeds))
    (args.workdir / "lira_variance.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
