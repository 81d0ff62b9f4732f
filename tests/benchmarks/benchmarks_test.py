"""The benchmarks start, take the flags that all of them have, and compute and print what they say;
the peers' libraries are not needed here.
"""

import importlib
import json
import pkgutil
import sys

import numpy as np
import pytest

import benchmarks
from benchmarks import _pairs, fleet, interval_limits, scale, worst_start

STUDIES = (
    "audit_power",
    "audit_scores",
    "coverage",
    "gate",
    "lira_variance",
    "worst_start",
)  # of statistics, not of speed: nobody is timed, results are kept in a folder
# What a run survives, what can be known, what a device does, what a layer takes: no peers.
ALONE = (
    "accelerator",
    "banded_noise",
    "broken_privacy",
    "damage",
    "interval_limits",
    "kills",
    "label_inference",
    "layers",
    "mesh",
    "plan",
    "private_subsets",
    "record_rates",
    "rendering",
    "scale",
    *STUDIES,
)
NAMES = sorted(
    m.name
    for m in pkgutil.iter_modules(benchmarks.__path__)
    if not m.name.startswith("_") and m.name not in ALONE
)


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_main_and_the_flags_of_all(name, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert (
        "--quick" in text
        and "--runs" in text
        and "--peers" in text
        and f"python -m benchmarks.{name}" in text
    )


@pytest.mark.parametrize("name", (*STUDIES, "rendering"))
def test_every_study_has_main_a_quick_form_and_a_folder(name, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "--quick" in text and "--workdir" in text and f"python -m benchmarks.{name}" in text


def test_contenders_take_turns_and_the_ratio_is_that_of_the_medians():
    order, times = [], dict(ours=iter([1.0, 9.0, 2.0]), peer=iter([8.0, 6.0, 70.0]))

    def run(name):
        order.append(name)
        return dict(seconds=next(times[name]))

    samples = _pairs.interleaved({name: lambda name=name: run(name) for name in times}, runs=3)
    assert order == ["ours", "peer"] * 3
    ours, peer = (_pairs.median(samples[name], "seconds") for name in ("ours", "peer"))
    assert (ours, peer) == (2.0, 8.0)
    assert (
        _pairs.comparison(benchmark="b", case="c", ours_s=ours, peer="p", peer_s=peer)["ratio"]
        == 4.0
    )


def test_a_line_has_the_fields_and_four_digits(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    record = _pairs.comparison(
        benchmark="fleet",
        case="conv",
        ours_s=0.123456,
        peer="torch",
        peer_s=0.246912,
        steps=12345678,
    )
    fields = json.loads(_pairs.line(record))
    assert list(fields)[:6] == ["benchmark", "case", "ours_s", "peer", "peer_s", "ratio"]
    assert (fields["ours_s"], fields["peer_s"], fields["ratio"], fields["steps"]) == (
        0.1235,
        0.2469,
        2.0,
        12345678,
    )
    assert "glibc_tunables" not in fields
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    assert (
        _pairs.comparison(benchmark="b", case="c", ours_s=1.0, peer="p", peer_s=1.0)[
            "glibc_tunables"
        ]
        == "glibc.malloc.hugetlb=1"
    )
    with pytest.raises(ValueError):
        _pairs.line(record | dict(ratio=float("nan")))


def test_slope_is_the_exponent():
    assert _pairs.slope([1, 2, 4, 8], [3.0, 6.0, 12.0, 24.0]) == pytest.approx(1)
    assert _pairs.slope([10, 100], [5.0, 500.0]) == pytest.approx(2)


def test_a_table_lines_up():
    assert _pairs.table(["", "time"], [["ours", "1 s"], ["a peer", "12.5 s"]]).splitlines() == [
        "          time",
        "------  ------",
        "ours       1 s",
        "a peer  12.5 s",
    ]
    assert [_pairs.seconds(v) for v in (12.34, 0.04567, 1.0)] == ["12.3 s", "45.7 ms", "1 s"]


def test_peak_memory_is_this_process_own():
    assert 10e6 < _pairs.peak_bytes() < 100e9


def test_compile_time_is_a_union_of_intervals():
    clock = fleet.Compiling.__new__(fleet.Compiling)
    clock.intervals = [(0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (5.2, 5.4)]
    assert clock.seconds() == pytest.approx(4)


def test_misspelt_names_are_refused_with_the_known_ones(capsys):
    for flag, text in (
        ("--cases=digit_mlp", "digits_mlp, small_cnn, conv"),
        ("--peers=tensorflow", "torch, torch_stacked"),
    ):
        with pytest.raises(SystemExit) as stop:
            fleet.main([flag])
        assert stop.value.code == 2 and text in capsys.readouterr().err


def test_without_the_peer_one_message_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(_pairs.importlib.util, "find_spec", lambda name: None)
    assert fleet.main(["--quick"]) == 1
    assert "pip install -r requirements-bench.txt" in capsys.readouterr().err


def test_a_contender_that_fails_is_one_message(capsys):
    with pytest.raises(_pairs.Missing, match="TypeError"):
        _pairs.contender("benchmarks.fleet", role="ours", nonsense=1)


@pytest.mark.slow
def test_ours_alone_on_a_tiny_fleet(capsys):
    assert (
        fleet.main(
            [
                "--quick",
                "--peers=none",
                "--cases=digits_mlp",
                "--models=2",
                "--epochs=2",
                "--chunk=2",
                "--no-exponents",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert (
        "digits_mlp: 2 models, 2 epochs, 104 steps, 1 run, batches of 32" in out
        and "ours" in out
        and "compile" in out
    )
    assert "{" not in out  # nothing was compared


def test_rules_for_intervals_cover_as_their_limits_say():
    """Where units add all variance, Student's t is exact; where they add none, rules are wide."""
    d = interval_limits.degrees(8)
    rule = interval_limits.report_rule
    assert interval_limits.coverage(rule, r=1e5, k=1.0, d=d) == pytest.approx(0.95, abs=0.002)
    assert 0.985 < interval_limits.coverage(rule, r=0.0, k=3.0, d=d) < 0.995
    half = interval_limits.RULES["half prior"]
    assert interval_limits.coverage(half, r=4.0, k=4.0, d=d) < 0.9


@pytest.mark.slow
def test_rendering_measures_a_small_report_and_keeps_its_table(tmp_path, capsys, monkeypatch):
    """A JSON line of each case and a table; the report has the sizes of the case."""
    from benchmarks import rendering
    from mia_jax.report import source

    monkeypatch.setattr(rendering, "chromium", lambda: None)
    assert rendering.main(["--quick", "--workdir", str(tmp_path)]) == 0
    line, *table = capsys.readouterr().out.strip().splitlines()
    fields = json.loads(line)
    assert list(fields)[:7] == [
        "benchmark", "case", "cpu_s", "wall_s", "peak_gb", "html_mb", "json_mb",
    ]  # fmt: skip
    page = tmp_path / "small-pages" / "report.html"
    assert fields["html_mb"] == pytest.approx(page.stat().st_size / 1e6, rel=1e-3)
    assert 0 < fields["cpu_s"] < 30 and 0 < fields["peak_gb"] < 1
    assert (tmp_path / "rendering.md").read_text().splitlines() == table
    case, report = rendering.QUICK["small"], source.load(tmp_path / "small" / "report.json")
    assert len(report["design"]["targets"]) == case.targets
    assert len(report["attacks"]) == len(report["curves"]) == case.attacks
    assert len({row["slice"] for row in report["results"]}) == case.slices
    curve = next(iter(report["curves"].values()))
    assert curve["n_member"] + curve["n_nonmember"] == case.targets * case.records
    assert len(report["epochs"]["accuracy"]) == rendering.EPOCHS


def test_the_exponents_of_scale_are_slopes_and_its_attacks_are_as_many_as_it_says():
    lines = [dict(models=8, cpu_s=2.0, peak_gb=1.0), dict(models=32, cpu_s=8.0, peak_gb=2.0)]
    text = scale.exponents("models", lines)
    assert text == "CPU seconds grow like models^1.00, peak memory like models^0.50"
    assert len(scale.ATTACKS) == 14
    assert scale.sizes("full", False) == [dict(examples=1_000_000, models=64, attacks=14)]
    assert scale.sizes("audit", True) == [dict(examples=50_000, models=8, attacks=1)]


def test_the_seconds_of_an_interrupted_audit_are_added_up(tmp_path):
    path = tmp_path / "run.used.json"
    path.write_text(json.dumps(dict(cpu_s=100.0, wall_s=200.0, peak_gb=900.0)))
    used = scale.Used(path).stop()
    assert 100 <= used["cpu_s"] < 101 and 200 <= used["wall_s"] < 210 and used["peak_gb"] == 900
    assert not path.exists() and scale.Used(None).stop()["cpu_s"] < 1


@pytest.mark.slow
def test_the_quick_cases_of_scale_print_a_line_of_json_each(capfd):
    assert scale.main(["--quick"]) == 0
    out = capfd.readouterr().out.splitlines()
    records = [json.loads(line) for line in out if line.startswith("{")]
    keys = {"benchmark", "case", "cpu_s", "wall_s", "peak_gb", "examples", "models", "attacks"}
    assert all(set(record) == keys for record in records)
    sizes = [
        (case, *size.values()) for case in scale.CASES[:-1] for size in scale.sizes(case, True)
    ]
    assert [
        tuple(r[k] for k in ("case", "examples", "models", "attacks")) for r in records
    ] == sizes
    assert sum(record["cpu_s"] for record in records) < 180
    assert sum("grow like" in line for line in out) == 3


@pytest.mark.slow
def test_runs_from_a_worst_case_start_are_kept_and_their_bounds_are_printed(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(worst_start, "PART", 40)
    monkeypatch.setattr(worst_start, "STEPS", 4)
    arguments = ["--runs", "80", "--starts", "worst", "--workdir", str(tmp_path)]
    assert worst_start.main(arguments) == 0
    files = sorted(tmp_path.rglob("*.npz"))
    first, lines = [file.stat().st_mtime_ns for file in files], capsys.readouterr().out
    rows = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    assert len(files) == 2 and {row["runs"] for row in rows} == {80}
    assert rows[0]["claimed"] == 10 and {row["method"] for row in rows} >= {"threshold", "rank_sum"}
    assert all(row["bound"] <= row["ceiling"] for row in rows)
    # The canary has the label that the start finds least likely, and is the last record.
    parts = worst_start.setting("worst", net="linear", path="", epsilon=10.0)
    assert not np.asarray(parts.pool.x[-1]).any() and len(parts.pool.y) == 1000
    # Finished parts are read, not trained again.
    assert worst_start.main(arguments) == 0
    assert [file.stat().st_mtime_ns for file in files] == first
