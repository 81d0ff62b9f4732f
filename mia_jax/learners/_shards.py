"""Cuts the batch of a step into shards and adds up what they return, always in the same order.

The number V of shards is part of what is computed. On how many devices they are computed is not:
every shard runs the same program, apart from all others, and the sum is ((0 + g_0) + g_1) + ... +
g_{V-1} everywhere. Round r computes the shards r * D, ..., r * D + D - 1, one on each of D devices,
so that a device holds the gradient of one shard. On one device this is gradient accumulation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from mia_jax.runtime import machine
from mia_jax.types import Pool

AXIS = "data"  # the axis of a mesh over which the shards of a batch are spread
# Leaves with fewer numbers stay whole on every device: gathering them costs more than they take.
LEAST = 1024
NEVER = 2**30  # more turns than any loop has


class Devices(NamedTuple):
    """Says over which devices the shards of a batch are spread.

    Attributes:
        mesh: a mesh with the axis AXIS.
        parameters: whether every device keeps a part of the parameters and of the optimizer state.
    """

    mesh: AbstractMesh
    parameters: bool = False

    @property
    def count(self) -> int:
        """Returns the number of devices D."""
        return self.mesh.shape[AXIS]


# What is traced in this context is spread over these devices; None for one device. The caches of
# jax.jit know it.
_asked = jax.make_user_context(None)


def over(devices: Devices | None):
    """Returns a context in which the shards of what is traced are spread over these devices."""
    return _asked(devices)


def placed(tree: Any, devices: Devices | None, *, state: bool = False) -> Any:
    """Returns arrays whose place on the devices is settled: whole on every one of them.

    Args:
        tree: arrays in a program.
        devices: None changes nothing.
        state: whether the arrays are the state of a chunk, whose first axis are the models; with
            `Devices.parameters` every device keeps a part of it.
    """
    if devices is None:
        return tree

    def at(a):
        apart = state and devices.parameters
        where = spec(a.shape, devices.count, first=1) if apart else PartitionSpec()
        return lax.with_sharding_constraint(a, NamedSharding(devices.mesh, where))

    return jax.tree.map(at, tree)


def check(shards: int, *, batch: int, unit: str = "rows") -> None:
    """Raises ValueError unless a batch can be cut into `shards` shards.

    >>> check(4, batch=8)
    """
    if shards < 1 or batch % shards:
        allowed = [n for n in range(1, batch + 1) if batch % n == 0]
        shown = ", ".join(map(str, allowed[:8])) + (", ..." if len(allowed) > 8 else "")
        raise ValueError(
            f"learner.shards={shards} must divide the batch of {batch} {unit}: {shown}. Change it, "
            "or learner.batch_size."
        )


def split_axis(shape: tuple[int, ...], devices: int, *, first: int = 0) -> int | None:
    """Returns the axis over which an array is spread; None if it stays whole.

    It is the longest of the axes from `first` on that the number of devices divides.

    >>> split_axis((3, 3, 64, 128), 4), split_axis((10,), 4)
    (3, None)
    """
    fitting = [axis for axis in range(first, len(shape)) if shape[axis] % devices == 0]
    if devices == 1 or math.prod(shape[first:]) < LEAST or not fitting:
        return None
    return max(fitting, key=lambda axis: shape[axis])


def spec(shape: tuple[int, ...], devices: int, *, first: int = 0) -> PartitionSpec:
    """Returns how an array lies on the devices if parameters are spread, see `split_axis`."""
    axis = split_axis(shape, devices, first=first)
    return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS)


def once(pool: Pool) -> jax.Array:
    """Returns the number 1, which a compiler has to look up in the labels (see `apart`)."""
    first = jnp.ravel(jnp.asarray(pool.y))[0]
    whole = jnp.issubdtype(first.dtype, jnp.integer)
    lowest = (jnp.iinfo if whole else jnp.finfo)(first.dtype).min
    return 1 + (first == lowest).astype(jnp.int32)


def apart(function: Callable, given: Any, shared: Any, *, turns: jax.Array) -> Any:
    """Returns function(given, shared), compiled apart from what comes before and after.

    Compilers fuse operations with their neighbors, which changes last bits, and XLA's CPU compiler
    does so across `optimization_barrier`. Nothing is fused across the border of a loop whose number
    of turns is not known when it is compiled; every turn has the same result.

    Args:
        function: a pure function.
        given: arrays on which its arithmetic depends.
        shared: what else it reads.
        turns: `once`, the same number for all models of a program.
    """
    if machine.platform() != "cpu":
        return lax.optimization_barrier(function(*lax.optimization_barrier((given, shared))))

    def turn(state):
        i, _ = state
        # What does not depend on the turn would be moved out of the loop.
        now = jax.tree.map(lambda a: jnp.where(i < NEVER, a, jnp.zeros_like(a)), given)
        return i + 1, function(now, shared)

    shape = jax.eval_shape(function, given, shared)
    empty = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shape)
    return lax.while_loop(lambda state: state[0] < turns, turn, (jnp.int32(0), empty))[1]


def summed(
    function: Callable, rows: Any, shared: Any, *, shards: int, turns: jax.Array
) -> tuple[Any, Any]:
    """Returns (the sum of what function(part, shared) returns first, the rest joined).

    Args:
        function: function(part, shared) -> (values that are added over the shards, values with one
            entry per row of the part).
        rows: arrays [B, ...]; V consecutive parts of B / V rows are the shards.
        shared: what all shards read.
        shards: V; with 1 the function is called as it is.
        turns: see `apart`.
    """
    if shards == 1:
        return function(rows, shared)
    devices = _asked.value
    count = 1 if devices is None else devices.count
    rounds = jax.tree.map(
        lambda a: a.reshape(shards // count, count, a.shape[0] // shards, *a.shape[1:]), rows
    )

    shape = jax.eval_shape(function, jax.tree.map(lambda a: a[0, 0], rounds), shared)[0]
    packed = count > 1 and not devices.parameters
    layout = _Packed(shape, count) if packed else _Leaves(shape, count)

    def on_device(rounds, shared, turns):
        return _in_rounds(lambda part: apart(function, part, shared, turns=turns), rounds, layout)

    if count > 1:
        on_device = jax.shard_map(
            on_device,
            mesh=devices.mesh,
            in_specs=(PartitionSpec(None, AXIS), PartitionSpec(), PartitionSpec()),
            out_specs=(layout.specs, PartitionSpec()),
            check_vma=False,
        )
    total, joined = on_device(rounds, shared, turns)
    return total, jax.tree.map(lambda a: a.reshape(-1, *a.shape[3:]), joined)


def _in_rounds(compute: Callable, rounds, layout: _Leaves | _Packed) -> tuple[Any, Any]:
    """Returns what a device has of (the sum, the joined values [rounds, D, rows, ...])."""

    def of_round(total, parts):
        values, joined = compute(jax.tree.map(lambda a: a[0], parts))
        return layout.added(total, values), jax.tree.map(lambda a: a[None], joined)

    total, joined = lax.scan(of_round, layout.zero(), rounds)
    if layout.devices > 1:
        joined = lax.all_gather(joined, AXIS, axis=1, tiled=True)
    return layout.whole(total), joined


class _Leaves:
    """Adds trees leaf by leaf; each device has the part of a sum that `spec` gives it."""

    def __init__(self, shape, devices: int):
        self.shape, self.devices = shape, devices
        self.specs = jax.tree.map(lambda a: spec(a.shape, devices), shape)

    def zero(self):
        """Returns the sum of nothing."""

        def part(a):
            axis = split_axis(a.shape, self.devices)
            shape = [n // self.devices if i == axis else n for i, n in enumerate(a.shape)]
            return jnp.zeros(shape, a.dtype)

        return jax.tree.map(part, self.shape)

    def added(self, total, values):
        """Returns the sum after the values of one shard per device, in the devices' order."""
        return jax.tree.map(
            lambda t, a: _added(t, a, split_axis(a.shape, self.devices), self.devices),
            total,
            values,
        )

    def whole(self, total):
        """Returns the tree that leaves the device."""
        return total


class _Packed:
    """Adds trees as one vector per dtype, so that a step needs few messages between devices."""

    specs = PartitionSpec()

    def __init__(self, shape, devices: int):
        self.shape, self.devices = shape, devices

    def _vectors(self, values) -> dict[str, jax.Array]:
        """Returns {dtype: the leaves of this dtype in one vector, padded}."""
        leaves: dict[str, list] = {}
        for a in jax.tree.leaves(values):
            leaves.setdefault(a.dtype.name, []).append(a.reshape(-1))
        padded = {}
        for name, parts in leaves.items():
            more = -sum(a.size for a in parts) % self.devices
            padded[name] = jnp.concatenate([*parts, jnp.zeros(more, parts[0].dtype)])
        return padded

    def zero(self) -> dict[str, jax.Array]:
        """Returns the sum of nothing: the part of every vector that a device adds up."""
        vectors = jax.eval_shape(self._vectors, self.shape)
        return {k: jnp.zeros(a.size // self.devices, a.dtype) for k, a in vectors.items()}

    def added(self, total, values) -> dict[str, jax.Array]:
        """Returns the sum after the values of one shard per device, in the devices' order."""
        return {
            name: _added(total[name], vector, 0, self.devices)
            for name, vector in self._vectors(values).items()
        }

    def whole(self, total):
        """Returns the tree that leaves the device."""
        vectors = {k: lax.all_gather(a, AXIS, tiled=True) for k, a in total.items()}
        start, leaves = dict.fromkeys(vectors, 0), []
        for a in jax.tree.leaves(self.shape):
            name = a.dtype.name
            leaves.append(vectors[name][start[name] : start[name] + a.size].reshape(a.shape))
            start[name] += a.size
        return jax.tree.unflatten(jax.tree.structure(self.shape), leaves)


def _added(total, a, axis: int | None, devices: int):
    """Returns ((total + a of device 0) + a of device 1) + ..., of the part that a device adds up.

    Args:
        total: the sum so far, of this part.
        a: the values of this device, whole.
        axis: the axis of `a` of which each device adds up a part; None: each adds up all.
        devices: the number of devices.
    """
    if devices == 1:
        return total + a
    if axis is None:
        pieces = lax.all_gather(a, AXIS)
    else:
        size = a.shape[axis] // devices
        a = a.reshape(*a.shape[:axis], devices, size, *a.shape[axis + 1 :])
        pieces = lax.all_to_all(a, AXIS, split_axis=axis, concat_axis=0)
    return functools.reduce(jnp.add, [pieces[d] for d in range(devices)], total)
