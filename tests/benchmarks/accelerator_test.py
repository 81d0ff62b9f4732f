"""The measurement of a device: lines as they are made, deadlines, failures; and all of it, tiny."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import _pairs, _probe, accelerator
from benchmarks._probe import Probe

BLOCKED = ("ml_collections", "dp_accounting", "tensorflow_datasets", "jinja2", "matplotlib")
RUN = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None  # as if it were not installed
from benchmarks import accelerator
raise SystemExit(accelerator.main(sys.argv[1:]))
"""


def test_a_measurement_is_a_line_at_once_and_a_failure_is_one_too(tmp_path, capsys):
    probe = Probe(tiny=False, deadline=60.0, out=tmp_path / "lines.jsonl")
    probe.say(section="a", case="b", seconds=0.12345678)

    def fail():
        raise MemoryError("RESOURCE_EXHAUSTED: too large\nsecond line")

    probe.attempt(fail, section="a", case="c")
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert lines == [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] | dict(at=0) == dict(
        benchmark="accelerator", section="a", case="b", seconds=0.123457, at=0
    )
    assert lines[1]["error"] == "MemoryError: RESOURCE_EXHAUSTED: too large"


def test_nothing_begins_after_the_deadline():
    probe = Probe(tiny=True, deadline=-1.0)
    with pytest.raises(_probe.Over):
        probe.attempt(lambda: pytest.fail("it ran"), section="a")
    assert probe.records == []


def test_sections_are_listed_and_a_misspelt_one_is_refused(capsys):
    assert accelerator.main(["--list"]) == 0
    assert capsys.readouterr().out.split() == list(accelerator.SECTIONS)
    assert all(name.split("_")[0] in accelerator.__doc__ for name in accelerator.SECTIONS)
    with pytest.raises(SystemExit):
        accelerator.main(["--sections=fleet_vgg"])
    assert "fleet_vgg" in capsys.readouterr().err


def test_the_table_names_the_fastest_form_and_what_failed():
    step = dict(section="fleet_conv", case="conv", chunk=4, gigabytes=1.0, compile_s=2.0)
    records = [
        step | dict(form="patches", ms_per_model_step=3.0, images_per_s=1.0),
        step | dict(form="turns", ms_per_model_step=2.0, images_per_s=1.0),
        step | dict(form="grouped", skipped="needs 99.0 GB"),
        dict(section="dp", case="x", error="ValueError: no"),
    ]
    text = accelerator.table(records)
    assert "fastest conv: turns at chunk 4, 2 ms per step and model" in text
    assert "skipped" in text and "ValueError: no" in text


@pytest.mark.slow
def test_everything_runs_tiny_without_packages_of_configs_reports_and_accounting(tmp_path):
    lines = tmp_path / "lines.jsonl"
    command = [sys.executable, "-c", RUN, "--tiny", f"--out={lines}"]
    done = subprocess.run(command, cwd=_pairs.ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    ended = [r["section"] for r in records if r["case"] == "section"]
    assert ended == list(accelerator.SECTIONS)
    assert not [r for r in records if "error" in r]
    stages = next(r for r in records if r["section"] == "end_to_end" and "train_s" in r)
    assert {"train_s", "query_s", "attack_s", "auc"} <= set(stages)
