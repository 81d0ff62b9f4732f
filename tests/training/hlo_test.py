"""Tests that kernels and their bytes are those that one counts by hand in a compiled program."""

import pytest

from mia_jax.training import hlo

# a loop of 5 rounds over a product, an update in place of one row, and rows of a large pool
TEXT = """HloModule jit_run, is_scheduled=true

%rows (p0: f32[1000,8], p1: s32[2]) -> f32[2,8] {
  %p0 = f32[1000,8]{1,0} parameter(0)
  %p1 = s32[2]{0} parameter(1)
  %picked = f32[2,8]{1,0} gather(%p0, %p1), offset_dims={1}, slice_sizes={1,8}
  ROOT %scaled = f32[2,8]{1,0} negate(%picked)
}

%written (q0: f32[5,8], q1: f32[1,8], q2: s32[]) -> f32[5,8] {
  %q0 = f32[5,8]{1,0} parameter(0)
  %q1 = f32[1,8]{1,0} parameter(1)
  %q2 = s32[] parameter(2)
  ROOT %update = f32[5,8]{1,0} dynamic-update-slice(%q0, %q1, %q2, %q2)
}

%body (t: (s32[], f32[8,8], f32[5,8])) -> (s32[], f32[8,8], f32[5,8]) {
  %t = (s32[], f32[8,8]{1,0}, f32[5,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %w = f32[8,8]{1,0} get-tuple-element(%t), index=1
  %kept = f32[5,8]{1,0} get-tuple-element(%t), index=2
  %product = (f32[8,8]{1,0}, s8[64]{0}) custom-call(%w, %w), custom_call_target="__cublas$gemm"
  %new = f32[8,8]{1,0} get-tuple-element(%product), index=0
  %row = f32[1,8]{1,0} slice(%new), slice={[0:1], [0:8]}
  %fusion.1 = f32[5,8]{1,0} fusion(%kept, %row, %i), kind=kLoop, calls=%written
  ROOT %out = (s32[], f32[8,8]{1,0}, f32[5,8]{1,0}) tuple(%i, %new, %fusion.1)
}

%condition (t: (s32[], f32[8,8], f32[5,8])) -> pred[] {
  %t = (s32[], f32[8,8]{1,0}, f32[5,8]{1,0}) parameter(0)
  ROOT %true = pred[] constant(true)
}

ENTRY %main (pool: f32[1000,8], index: s32[2], w: f32[8,8]) -> (f32[2,8], f32[8,8]) {
  %pool = f32[1000,8]{1,0} parameter(0)
  %index = s32[2]{0} parameter(1)
  %w = f32[8,8]{1,0} parameter(2)
  %fusion = f32[2,8]{1,0} fusion(%pool, %index), kind=kLoop, calls=%rows
  %start = (s32[], f32[8,8]{1,0}, f32[5,8]{1,0}) tuple(%index, %w, %fusion)
  %while = (s32[], f32[8,8]{1,0}, f32[5,8]{1,0}) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"},"x":[1]}
  %last = f32[8,8]{1,0} get-tuple-element(%while), index=1
  ROOT %result = (f32[2,8]{1,0}, f32[8,8]{1,0}) tuple(%fusion, %last)
}
""".replace("\\\n", "")


def test_a_loop_counts_by_its_rounds_and_what_is_sliced_by_its_slice():
    gather = 64 + 8 + 64  # two rows read, their numbers, two rows written
    product = 256 + 256 + (256 + 64)  # both factors, the result and its workspace
    row = 256 + 32  # the slice reads all of its operand
    update = 32 + 32 + 4 + 32  # one row of the array, the new row, its number, one row written
    assert hlo.kernels(TEXT) == (gather + 5 * (product + row + update), 1 + 5 * 3)


def test_what_is_gathered_or_updated_counts_by_its_part_wherever_it_stands():
    text = """HloModule jit_run, is_scheduled=true

%rows (p0: f32[1000,8], p1: s32[2]) -> f32[2,8] {
  %p0 = f32[1000,8]{1,0} parameter(0)
  %p1 = s32[2]{0} parameter(1)
  %cast = f32[1000,8]{1,0} bitcast(%p0)
  ROOT %picked = f32[2,8]{1,0} gather(%cast, %p1), offset_dims={1}, slice_sizes={1,8}
}

ENTRY %main (pool: f32[1000,8], index: s32[2]) -> f32[1000,8] {
  %pool = f32[1000,8]{1,0} parameter(0)
  %index = s32[2]{0} parameter(1)
  %inside = f32[2,8]{1,0} fusion(%pool, %index), kind=kLoop, calls=%rows
  %alone = f32[2,8]{1,0} gather(%pool, %index), offset_dims={1}, slice_sizes={1,8}
  ROOT %update = f32[1000,8]{1,0} dynamic-update-slice(%pool, %alone, %index, %index)
}
"""
    gather = 64 + 8 + 64  # two rows read, their numbers, two rows written
    assert hlo.kernels(text) == (2 * gather + 2 * 64, 3)  # two rows read and written in place


@pytest.mark.parametrize("unknown", ("", "HloModule nothing"))
def test_a_text_without_a_program_has_no_kernels(unknown):
    assert hlo.kernels(unknown) == (0, 0)
