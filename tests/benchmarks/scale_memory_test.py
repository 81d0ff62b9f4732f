"""Queries and pools that are larger than the memory, at the reduced size of `--quick`; the full
sizes are cases of benchmarks.scale.
"""

import pytest

from benchmarks import _scale_memory


@pytest.mark.slow
@pytest.mark.parametrize("case, most", [("query", 1.0), ("pool", 1.0)])
def test_what_is_larger_than_the_memory_gives_the_same_bits(case, most, tmp_path):
    """A query that is killed twice; a pool of 1 GB on disk in 0.5 GB above the start."""
    row = _scale_memory.run_case(case, quick=True, folder=str(tmp_path))
    assert row["equal"] and row["peak_gb"] < most
    assert row.get("left_over", 0) == 0 and row["above_gb"] <= row.get("limit_gb", most)
