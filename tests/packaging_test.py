"""What `pip install` gives: the wheel has all files and says what it needs, and an installation
outside the checkout does what the checkout does.
"""

import email
import email.message
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mia_jax
from mia_jax import __main__ as command
from mia_jax.configuration import shipped

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {
    "scikit-learn": "sklearn",
    "absl-py": "absl",
    "markdown-it-py": "markdown_it",
    "pillow": "PIL",
}  # distributions with another module name
FILES = ("requirements.txt", *(f"requirements-{name}.txt" for name in ("test", "bench", "tf")))
AUDIT = """
import mia_jax, numpy as np
member = np.arange(400) % 2 == 0; loss = np.random.default_rng(0).exponential(2.0 - member)
r = mia_jax.audit(loss=loss, member=member); print(r)
"""


DIGITS = """
import mia_jax, numpy as np
from sklearn.datasets import load_digits
x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
member = np.random.default_rng(1).random(len(x)) < 0.5
{fit}
model = fit(x[member], y[member], 0)
r = mia_jax.audit(predict=model, x=x, y=y, member=member, fit=fit, shadows=8)
print(r)
"""
# module that a fit needs -> the fit of an MLP 64-64-10 in that framework
FITS = dict(
    torch="""
import torch
torch.set_num_threads(1)
def fit(x, y, seed):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    for _ in range(40):
        for rows in torch.randperm(len(x)).split(32):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            adam.step()
    return net
""",
    keras="""
import keras
def fit(x, y, seed):
    keras.utils.set_random_seed(seed % 2**32)
    layers = keras.layers
    net = keras.Sequential([layers.Input((64,)), layers.Dense(64, "relu"), layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(3e-3), loss)
    net.fit(x, y, batch_size=32, epochs=40, verbose=0)
    return net
""",
    flax="""
import flax.linen as nn, jax, optax
net, adam = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)]), optax.adam(3e-3)
def loss(v, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(net.apply(v, x), y).mean()
@jax.jit
def step(v, state, x, y):
    updates, state = adam.update(jax.grad(loss)(v, x, y), state)
    return optax.apply_updates(v, updates), state
def fit(x, y, seed):
    v = net.init(jax.random.key(seed), x[:1])
    state, rng = adam.init(v), np.random.default_rng(seed)
    for _ in range(40):
        for rows in rng.permutation(len(x))[: len(x) // 32 * 32].reshape(-1, 32):
            v, state = step(v, state, x[rows], y[rows])
    return net, v
""",
)
FOREST = """
import mia_jax
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
x, y = load_breast_cancer(return_X_y=True)
print(mia_jax.audit(fit=RandomForestClassifier(), x=x, y=y, models=16))
"""


def build(folder: pathlib.Path) -> pathlib.Path:
    """Returns the wheel of a copy of the checkout, as setuptools is installed here makes it."""
    source = folder / "source"
    for name in ("mia_jax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("build", reason="pip install -r requirements-test.txt")
    return build(tmp_path_factory.mktemp("wheel"))


def metadata(wheel: pathlib.Path) -> email.message.Message:
    """Returns the METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_string(archive.read(name).decode())


def requirements(lines) -> dict[str, Requirement]:
    """Returns {name: requirement} of lines without extras."""
    read = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r for r in read if "extra" not in str(r.marker or "")}


def pins(file: str) -> dict[str, list[str]]:
    """Returns {name: versions} of a requirements file; several versions have markers."""
    pinned: dict[str, list[str]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)==([^\s;]+)", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE
    ):
        pinned.setdefault(canonicalize_name(name), []).append(version)
    return pinned


def test_the_wheel_has_every_module_template_and_config_and_nothing_else(wheel):
    files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "mia_jax").rglob("*.py")}
    files |= {p.relative_to(ROOT).as_posix() for p in (ROOT / "mia_jax").rglob("*.j2")}
    assets = (ROOT / "mia_jax" / "report" / "assets").iterdir()
    files |= {p.relative_to(ROOT).as_posix() for p in assets if p.is_file()}
    files |= {f"mia_jax/configs/{name}.py" for name in shipped.names()}
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == files
    assert {"mia_jax/configs/zoo/lenet.py", "mia_jax/report/templates/answer.md.j2"} <= inside


def test_the_wheel_says_version_pythons_needs_and_command(wheel):
    says = metadata(wheel)
    assert says["Version"] == mia_jax.__version__
    assert says["Requires-Python"] == ">=3.11"
    classifiers = says.get_all("Classifier")
    for version in ("3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    needs = requirements(says.get_all("Requires-Dist"))
    modules = {MODULES.get(name, name.replace("-", "_")) for name in needs}
    assert modules == set(command.PACKAGES)
    assert all(r.specifier for r in needs.values()), "a lower bound each"
    extras = {"gpu", "tpu", "tfds", "tensorboard", "pandas", "watch", "docs", "test", "bench"}
    assert extras <= set(says.get_all("Provides-Extra"))
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert "mia-jax = mia_jax.__main__:start" in archive.read(name).decode()


def test_the_changelog_begins_with_this_version():
    heads = re.findall(
        r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert heads[0] == mia_jax.__version__ and f"version: {heads[0]}\n" in (
        ROOT / "CITATION.cff"
    ).read_text(encoding="utf-8")


def test_the_pinned_set_is_complete_hashed_and_of_no_machine():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    pinned = pins("requirements.txt")
    optional = PROJECT["optional-dependencies"]
    asked = requirements([*PROJECT["dependencies"], *optional["tfds"], *optional["tensorboard"]])
    for name, requirement in asked.items():
        for version in pinned[name]:
            assert requirement.specifier.contains(version), (name, version)
    entries = re.split(r"\n(?=[a-z])", text.split("\n", 2)[2])
    assert all("--hash=sha256:" in entry for entry in entries) and len(entries) > 50
    assert "uv pip compile pyproject.toml" in text.split("\n")[1]
    assert not re.search(r"index-url|find-links|trusted-host|://|(?<!pip)\s/\w|file:", text)


@pytest.mark.parametrize("file", FILES[1:])
def test_further_requirements_fit_the_pinned_set(file):
    """They have no hashes and do not name requirements.txt, which has: pip refuses a mixture."""
    text = (ROOT / file).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.match(r"[\w.-]+==[\w.]+($|  #)", line) for line in lines), lines
    for other in FILES:
        shared = pins(file).keys() & pins(other).keys()
        assert all(pins(file)[name] == pins(other)[name] for name in shared), (file, other)


@pytest.mark.parametrize("extra", ("test", "bench"))
def test_an_extra_asks_for_what_its_file_pins(extra):
    pinned = pins("requirements.txt") | pins(f"requirements-{extra}.txt")
    for name, requirement in requirements(PROJECT["optional-dependencies"][extra]).items():
        if name != "mia-jax":
            assert all(requirement.specifier.contains(v) for v in pinned[name]), name


def run(python, *arguments, folder, code=0, **environment) -> str:
    """Standard output of a Python in a folder that is no checkout."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    done = subprocess.run(
        [python, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=clean | {"JAX_PLATFORMS": "cpu"} | environment,
    )
    assert done.returncode == code, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_an_unpacked_wheel_finds_its_configs_from_any_folder(wheel, tmp_path):
    """What pip does with a wheel of Python files is to unpack it."""
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        "from mia_jax.configuration import command_line, shipped; import mia_jax.configs.zoo.xor; "
        "print(mia_jax.configs.zoo.xor.__file__, *shipped.names()); "
        "print(command_line.check_file('quickstart'))"
    )
    words = run(sys.executable, "-c", code, folder=elsewhere, PYTHONPATH=str(site)).split()
    assert words[0] == str(site / "mia_jax" / "configs" / "zoo" / "xor.py")
    assert tuple(words[1:-1]) == shipped.names()
    assert words[-1] == str(site / "mia_jax" / "configs" / "quickstart.py")


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_an_unpacked_wheel_audits_a_net_of_each_framework_in_two_minutes(wheel, name, tmp_path):
    """With 8 shadow models, from a folder that is no checkout; counted in CPU seconds."""
    if importlib.util.find_spec(name) is None:
        pytest.skip("pip install -r requirements-test.txt")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    before = sum(os.times()[2:4])
    environment = dict(PYTHONPATH=str(tmp_path / "site"), KERAS_BACKEND="jax")
    environment["JAX_NUMPY_RANK_PROMOTION"] = "allow"  # as for a user; tests let it raise
    code = DIGITS.format(fit=FITS[name])
    output = run(sys.executable, "-c", code, folder=tmp_path / "elsewhere", **environment)
    assert "LEAK SHOWN" in output and "NO LEAK" not in output
    assert sum(os.times()[2:4]) - before < 120


def test_without_packages_the_remedy_fits_the_installation(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "PACKAGES", ("json", "no_such_package"))
    (tmp_path / "site").mkdir()
    with pytest.raises(SystemExit) as end:
        command.check_packages(tmp_path / "site")
    assert "has no no_such_package; type `" in end.value.code
    assert f"{sys.executable} -m pip install" in end.value.code and "make" not in end.value.code
    (tmp_path / "pyproject.toml").write_text("")
    with pytest.raises(SystemExit, match=r"type `make quickstart`"):
        command.check_packages(tmp_path)
    (tmp_path / ".venv").mkdir()
    with pytest.raises(SystemExit, match=r"type `\. \.venv/bin/activate`"):
        command.check_packages(tmp_path)
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    with pytest.raises(SystemExit, match=r"is 3.10 and 3.11 is needed; make a virtual environment"):
        command.check_packages(tmp_path / "site")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_installed_wheel_audits_in_three_lines_and_runs_the_command(wheel, tmp_path):
    """A clean virtual environment, dependencies and all, in a folder outside the checkout."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"), folder=folder)
    python, mia = tmp_path / "venv/bin/python", tmp_path / "venv/bin/mia-jax"
    run(python, "-m", "pip", "install", "--quiet", str(wheel), folder=folder)
    where = run(python, "-c", "import mia_jax; print(mia_jax.__file__)", folder=folder)
    assert where.startswith(str(tmp_path / "venv"))
    assert re.search(r"LEAK SHOWN|NO LEAK", run(python, "-c", AUDIT, folder=folder))
    before = sum(os.times()[2:4])
    assert "LEAK SHOWN" in run(python, "-c", FOREST, folder=folder)
    assert sum(os.times()[2:4]) - before < 30
    assert "zoo/lenet" in run(mia, "--config=quickstart", "--list=configs", folder=folder)
    assert "61,706" in run(mia, "--config=zoo/lenet", "--summary", folder=folder)
    tiny = ["--config=quickstart:models=4,epochs=2", "--workdir=runs/tiny", "--compile_cache=off"]
    output = run(mia, *tiny, "--config.report.draws=40", folder=folder)
    assert "report: runs/tiny/report/report.html" in output
    assert "report.md" in run(python, "-m", "mia_jax", "report", "runs/tiny", folder=folder)
    run(mia, "report", "nowhere", folder=folder, code=64)
    run(python, "-m", "pip", "check", folder=folder)
