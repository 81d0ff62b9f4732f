"""launch.py as a user starts it, but for the seconds that its imports take: a process that has
imported them forks one child a command.

The child runs the file as __main__ with its own arguments, environment and streams. JAX's backends
start in the child, never before the fork.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SERVER = """
import json, os, runpy, sys, traceback
sys.path.insert(0, "")
import matplotlib.figure, scipy.stats, sklearn.datasets, absl.app, ml_collections.config_flags
import mia_jax.pipeline.grid, mia_jax.data.digits, mia_jax.models.mlp
for line in sys.stdin:
    argv, out, err = json.loads(line)
    child = os.fork()
    if child == 0:
        for path, stream in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.argv, code = argv, 0
        try:
            runpy.run_path(argv[0], run_name="__main__")
        except SystemExit as end:
            code = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@functools.cache
def server() -> subprocess.Popen:
    """The process that forks; it ends when its input does."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def launch(*flags: str, fails: bool = False) -> tuple[str, str]:
    """stdout and stderr of launch.py; a failure must be one message without a traceback."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = (os.path.join(folder, name) for name in ("out", "err"))
        process = server()
        process.stdin.write(json.dumps([["launch.py", *flags], out, err]) + "\n")
        process.stdin.flush()
        code = int(process.stdout.readline())
        stdout, stderr = pathlib.Path(out).read_text(), pathlib.Path(err).read_text()
    assert code == (1 if fails else 0), stderr[-2000:]
    if fails:
        assert "Traceback" not in stderr and "error: " in stderr
        assert len(stderr.split("error: ")[-1].splitlines()) <= 8
    return stdout, stderr
