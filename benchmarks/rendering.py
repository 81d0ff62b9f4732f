"""How long does it take to render a report, how much memory, and how large is the page?

    python -m benchmarks.rendering [--quick] [--workdir runs/rendering] [--cases quickstart,large]

report.json is synthetic: logits of models of which the attacks of the package are told the truth,
audited by `mia_jax.audit`. The ROC curves are those of all records, thinned as in any report; the
other numbers are measured on the first records of a case, because only their digits depend on how
many records there are. Attacks over 50 epochs are repetitions of those numbers.

The cases:

    quickstart  64 targets x 14 attacks x 11 slices x 1,797 records
    large       64 targets x 20 attacks x 12 slices x 50,000 records

Each is rendered (report.json -> report.html and report.md) in a fresh interpreter: seconds with its
imports, and the most memory that it held. `open_s` is the time from the start of the navigation to
the end of the load event in a headless Chromium (the fastest of 3), when the page has been drawn by
its scripts; null without chromium, chromium-driver and selenium. Reports are kept in WORKDIR and
used again.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks import _pairs
from mia_jax.runtime import files

BYTES = 1e6
SIGNALS = ("loss", "confidence", "max_confidence", "entropy", "modified_entropy", "hinge")
EPOCHS = 50


class Case(NamedTuple):
    """Holds the size of a report.

    Attributes:
        targets, attacks, slices, records: how many of each; the slices are all records and those
            of the classes.
        measured: how many records the numbers other than curves come from.
        draws: the draws of the bootstrap.
    """

    targets: int
    attacks: int
    slices: int
    records: int
    measured: int
    draws: int = 40


CASES = dict(
    quickstart=Case(targets=64, attacks=14, slices=11, records=1797, measured=1797),
    large=Case(targets=64, attacks=20, slices=12, records=50_000, measured=2000),
)
QUICK = dict(small=Case(targets=4, attacks=4, slices=3, records=600, measured=200))


def planned(count: int) -> dict[str, dict]:
    """Returns `count` attacks as sections of a config: forms of LiRA, thresholds and the gap."""
    attacks = {"gap": dict(name="gap")}
    attacks |= {f"threshold_{s}": dict(name="threshold", signal=s) for s in SIGNALS}
    for variance in ("shrunk", "per_example", "pooled"):
        for center in ("mean", "median"):
            attacks[f"lira_{variance}_{center}"] = dict(
                name="lira", mode="online", variance=variance, center=center
            )
        for score in ("log_cdf", "log_pdf"):
            attacks[f"lira_offline_{variance}_{score}"] = dict(
                name="lira", mode="offline", variance=variance, offline_score=score
            )
    attacks["offset"] = dict(name="offset", signal="loss")
    if count > len(attacks):
        raise ValueError(f"attacks={count}: there are {len(attacks)}.")
    first = ["lira_shrunk_mean", "threshold_loss", *attacks]
    return {name: attacks[name] for name in list(dict.fromkeys(first))[:count]}


def audited(case: Case, seed: int = 0) -> dict:
    """Returns report.json of an audit of synthetic logits, with curves of all records of a case."""
    import mia_jax
    from mia_jax.measures import curves
    from mia_jax.metrics import bootstrap

    rng = np.random.default_rng(seed)
    classes, pairs = case.slices - 1, case.targets // 2
    labels = np.arange(case.measured) % classes
    # targets are complementary: who is no member of the one is a member of the other
    half = rng.random((pairs, case.measured)) < 0.5
    member = np.stack([half, ~half], 1).reshape(case.targets, case.measured)
    logits = rng.normal(size=(*member.shape, classes)).astype(np.float32)
    logits[:, np.arange(case.measured), labels] += 2 + rng.normal(size=case.measured) + member
    attacks = planned(case.attacks)
    results = mia_jax.audit(
        shadow_logits=logits,
        shadow_member=member,
        labels=labels,
        attacks=attacks,
        slices="class",
        draws=case.draws,
        report=dict(shadow_curve=list(attacks)[:2]),
    )
    report = dict(results.report)
    report["about"] = report["about"] | dict(examples=case.records)
    half = rng.random((pairs, case.records)) < 0.5
    member = np.stack([half, ~half], 1).reshape(case.targets, case.records)
    draws = bootstrap.make(case.records, np.arange(case.targets) // 2, draws=case.draws)
    everyone = np.ones(member.shape, bool)
    drawn, histograms = {}, {}
    for at, name in enumerate(attacks):
        score = rng.normal(size=member.shape) + (0.2 + 0.05 * at) * member
        of_attack = dict(score_TN=score)
        curve, histogram = curves.of({name: of_attack}, member, everyone, draws, fprs=(0.001, 0.01))
        drawn |= curve
        histograms |= histogram
    return report | dict(curves=drawn, histograms=histograms, epochs=over_epochs(report))


def over_epochs(report: Mapping) -> dict:
    """Returns a section `epochs` of the first 6 attacks: their last numbers in every epoch."""
    from mia_jax.measures import epochs
    from mia_jax.metrics import rows as result_rows

    names = list(report["attacks"])[:6]
    last = [
        row
        for row in result_rows.main_rows(report["results"])
        if row["attack"] in names and row["target"] is None
    ]
    accuracy = [
        dict(epoch=e, train_accuracy=1 - 0.5 / e, validation_accuracy=0.9 - 0.5 / e)
        for e in range(1, EPOCHS + 1)
    ]
    rows = [dict(row, epoch=e) for e in range(1, EPOCHS + 1) for row in last]
    return epochs.points(accuracy, rows)


def rendered(path: str, folder: str) -> dict[str, float]:
    """Renders a report.json in this process, whose imports count, and returns what that took."""
    start = time.perf_counter()
    from mia_jax.report import files as report_files

    report_files.render(path, folder)
    return dict(
        cpu_s=time.process_time(),
        wall_s=time.perf_counter() - start,
        peak_gb=_pairs.peak_bytes() / 1e9,
    )


def opened(page: pathlib.Path, browser: Iterator | None) -> float | None:
    """Returns the seconds until a page is loaded and drawn: the fastest of 3; None without a
    browser.
    """
    if browser is None:
        return None
    return min(_loaded(browser, page) for _ in range(3))


def _loaded(browser, page: pathlib.Path) -> float:
    browser.get(page.resolve().as_uri())
    ready = browser.execute_script("return document.documentElement.dataset.ready")
    assert ready == "true", "the scripts of the page did not end"
    milliseconds = browser.execute_script(
        "const entry = performance.getEntriesByType('navigation')[0];"
        "return entry.loadEventEnd - entry.startTime;"
    )
    return milliseconds / 1000


def chromium():
    """Returns a headless Chromium, or None where it or its driver or selenium is absent."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    try:
        from selenium import webdriver
    except ImportError:
        return None
    if not (binary and driver):
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


def measured(name: str, case: Case, folder: pathlib.Path, browser=None) -> dict:
    """Returns the record of a case: its seconds, memory and sizes."""
    from mia_jax.report import source
    from mia_jax.runtime.store import ReportFiles

    place = ReportFiles(folder / name)
    if not place.json.exists():
        place.folder.mkdir(parents=True, exist_ok=True)
        source.write(place.json, audited(case))
    pages = ReportFiles(folder / f"{name}-pages")
    # what rendered() needs of the environment is what `contender` gives it
    spent = _pairs.contender("benchmarks.rendering", path=str(place.json), folder=str(pages.folder))
    return dict(
        benchmark="rendering",
        case=name,
        cpu_s=spent["cpu_s"],
        wall_s=spent["wall_s"],
        peak_gb=spent["peak_gb"],
        html_mb=pages.html.stat().st_size / BYTES,
        json_mb=place.json.stat().st_size / BYTES,
        open_s=opened(pages.html, browser),
        cores=os.cpu_count(),
    )


def table(records: Sequence[Mapping], cases: Mapping[str, Case]) -> str:
    """Writes the records as a table in Markdown."""
    head = ("case", "CPU s", "wall s", "peak GB", "report.html MB", "report.json MB", "opens in s")
    lines = [" | ".join(head), " | ".join([":--", *["--:"] * (len(head) - 1)])]
    for record in records:
        case = cases[record["case"]]
        size = f"{case.targets} targets x {case.attacks} attacks x {case.slices} slices"
        keys = ("cpu_s", "wall_s", "peak_gb", "html_mb", "json_mb", "open_s")
        cells = ("–" if record[key] is None else f"{record[key]:.2f}" for key in keys)
        name = f"{record['case']}: {size} x {case.records:,} records"
        lines.append(" | ".join([name, *cells]))
    return "\n".join(f"| {line} |" for line in lines)


def parser() -> argparse.ArgumentParser:
    """Returns the reader of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="a small report, which shows it works")
    made.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/rendering"))
    made.add_argument(
        "--cases", type=_pairs.names(tuple(CASES)), default=list(CASES), help=", ".join(CASES)
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Measures the cases; prints a JSON line of each and the table, and keeps both."""
    argv = sys.argv[1:] if argv is None else argv
    if list(argv[:1]) == ["--contender"]:
        print(json.dumps(rendered(**json.loads(argv[1]))))
        return 0
    asked = parser().parse_args(argv)
    cases = QUICK if asked.quick else {name: CASES[name] for name in asked.cases}
    browser, records = None if asked.quick else chromium(), []
    try:
        for name, case in cases.items():
            records.append(measured(name, case, asked.workdir, browser))
            print(_pairs.line(records[-1]), flush=True)
    finally:
        if browser is not None:
            browser.quit()
    text = table(records, cases)
    files.write_text(asked.workdir / "rendering.md", text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
