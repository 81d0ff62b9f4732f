"""Runs mia_jax from a checkout: the flags are described in mia_jax/__main__.py.

python launch.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

from mia_jax import __main__ as command

if __name__ == "__main__":
    command.start()
