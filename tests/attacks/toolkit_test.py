"""The public helpers for attacks: documented, complete, and with an example that runs."""

import doctest
import re

import jax
import numpy as np

from mia_jax import registry
from mia_jax.attacks import offset, toolkit
from mia_jax.designs import halves
from tests import planted

KEY = jax.random.key(0)


def test_the_worked_example_runs_and_is_the_attack_that_it_describes():
    (test,) = doctest.DocTestFinder(recurse=False).find(toolkit, "toolkit")
    assert doctest.DocTestRunner(verbose=False).run(test, clear_globs=False).failed == 0
    attack = test.globs["make"]()
    design = halves.make(num_examples=100, seed=0, models=8)
    fleet = planted.fleet(design, "loss", mu=1.0, seed=0, query_views=2)
    np.testing.assert_allclose(
        planted.scores(fleet, attack, KEY), planted.scores(fleet, offset.make(), KEY), atol=1e-6
    )
    assert attack.needs == offset.make().needs


def test_every_helper_exists_and_is_explained():
    bullets = "\n".join(re.findall(r"^\* (.*)$", toolkit.__doc__, re.MULTILINE))
    for name in toolkit.__all__:
        assert hasattr(toolkit, name)
        assert f"`{name}" in bullets or name == "Features", f"explain {name} in the docstring"
        helper = getattr(toolkit, name)
        assert not callable(helper) or helper.__doc__, f"{name} has no docstring"


def test_the_toolkit_is_not_an_attack():
    assert "toolkit" not in registry.names("attacks")
