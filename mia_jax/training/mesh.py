"""Groups devices that train a chunk of models together (`run.mesh`).

A mesh has `model` groups of `data` devices. The groups train different chunks, as single devices
do. The devices of a group share every batch: each computes some of its shards (learner.shards,
learners/_shards.py), and all keep the same state, or with `parameters` each a part of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from mia_jax import checks
from mia_jax.learners import _shards


@dataclasses.dataclass(frozen=True)
class Group:
    """Holds the devices that train a chunk together; it is used like a device.

    Attributes:
        mesh: the devices, on the axis of the shards.
        parameters: whether every device keeps a part of the state.
    """

    mesh: Mesh
    parameters: bool = False

    @property
    def devices(self) -> list:
        """Returns the devices in the order of the shards."""
        return list(self.mesh.devices.flat)

    @property
    def over(self) -> _shards.Devices:
        """Returns over what a program of the group spreads its shards; all groups share it."""
        return _shards.Devices(self.mesh.abstract_mesh, self.parameters)

    @property
    def platform(self) -> str:
        """Returns the platform of the devices."""
        return self.devices[0].platform

    @property
    def id(self) -> int:
        """Returns the number of the first device."""
        return self.devices[0].id


def make(
    *, devices: Sequence, shards: int, model: int = 1, data: int = 1, parameters: bool = False
) -> list:
    """Returns the groups of a mesh; with data=1 they are single devices.

    Args:
        devices: the devices that there are.
        shards: learner.shards.
        model: the number of groups, which train different models.
        data: the number of devices of a group, which share every batch.
        parameters: whether each device of a group keeps only a part of the parameters and of the
            state of the optimizer, for a model that is larger than a device. The sums of a step are
            then made by the compiler, so that last bits depend on `data`.

    Raises:
        ValueError: there are too few devices, or `data` does not divide the shards.
    """
    checks.at_least(1, **{"run.mesh.model": model, "run.mesh.data": data})
    if model * data > len(devices):
        count = len(devices)
        raise ValueError(
            f"run.mesh: model={model} x data={data} are {model * data} devices, and there "
            f"{'is' if count == 1 else 'are'} {count} ({devices[0].platform}). Lower one of them."
        )
    if shards % data:
        able = [n for n in range(2, len(devices) + 1) if shards % n == 0]
        remedy = (
            f"Set run.mesh.data to one of 1, {', '.join(map(str, able))}"
            if able
            else "Set run.mesh.data=1"
        )
        raise ValueError(
            f"run.mesh.data={data} does not divide learner.shards={shards}: every device computes "
            f"as many shards of a batch. {remedy}, or learner.shards to a multiple of {data} "
            "(which is another training, in another workdir)."
        )
    if data == 1:
        if parameters:
            raise ValueError(
                "run.mesh.parameters spreads a model over the devices of a group, and with data=1 "
                "a group has one; raise run.mesh.data (and learner.shards)."
            )
        return list(devices[:model])
    rows = np.array(devices[: model * data]).reshape(model, data)
    return [Group(Mesh(row, (_shards.AXIS,), (AxisType.Auto,)), parameters) for row in rows]


def over(place) -> _shards.Devices | None:
    """Returns over what the programs of a device (None) or group spread their shards."""
    return place.over if isinstance(place, Group) else None


def first(place):
    """Returns the first local device of a group; a device as it is."""
    if not isinstance(place, Group):
        return place
    return next(d for d in place.devices if d.process_index == jax.process_index())


def members(places: Sequence) -> list:
    """Returns all devices of devices and groups."""
    return [d for place in places for d in (place.devices if isinstance(place, Group) else [place])]


def put(tree: Any, place):
    """Returns the arrays on a device, or whole on every device of a group."""
    if not isinstance(place, Group):
        return jax.device_put(tree, place)
    return _put(tree, lambda a: NamedSharding(place.mesh, PartitionSpec()))


def put_state(state: Any, place):
    """Returns the state of a chunk on a device, or as the devices of a group keep it."""
    if not isinstance(place, Group):
        return jax.device_put(state, place)
    return _put(state, lambda a: state_sharding(place, a))


def state_sharding(place, leaf):
    """Returns where a leaf of the state of a chunk is; its first axis are the models."""
    if not isinstance(place, Group):
        return SingleDeviceSharding(place)
    spec = _shards.spec(leaf.shape, place.over.count, first=1) if place.parameters else None
    return NamedSharding(place.mesh, spec or PartitionSpec())


def sharding(place):
    """Returns where all other arrays are: on a device, or whole on every device of a group."""
    if not isinstance(place, Group):
        return SingleDeviceSharding(place)
    return NamedSharding(place.mesh, PartitionSpec())


def _put(tree, sharding_of):
    def leaf_put(a):
        a = a if isinstance(a, jax.Array) else np.asarray(a)
        where = sharding_of(a)
        if where.is_fully_addressable:
            return jax.device_put(a, where)
        # Every process has the same values and puts those of its devices.
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            data = np.asarray(jax.random.key_data(a))
            whole = jax.make_array_from_callback(data.shape, where, lambda index: data[index])
            return jax.random.wrap_key_data(whole, impl=jax.random.key_impl(a))
        values = np.asarray(a)
        values = values.astype(jax.dtypes.canonicalize_dtype(values.dtype))
        return jax.make_array_from_callback(values.shape, where, lambda index: values[index])

    return jax.tree.map(leaf_put, tree)


def whole(tree: Any):
    """Returns the arrays such that this process can read all of each."""

    def readable(a):
        if not isinstance(a, jax.Array) or a.is_fully_addressable or a.is_fully_replicated:
            return a
        return multihost_utils.process_allgather(a, tiled=True)

    return jax.tree.map(readable, tree)
