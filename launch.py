"""Runs mia_jax from a checkout: the flags are described in mia_jax/__main__.py.

python launch.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

from mia_jax import __main__ as command

__doc__ = command.__doc__  # what --help prints

if __name__ == "__main__":
    command.flags.adopt_module_key_flags(command)
    command.start()
