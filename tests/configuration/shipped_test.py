"""Configs by name: the same in a checkout and in an installed package."""

import pathlib

import pytest

from mia_jax.configuration import command_line, listing, shipped

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_a_checkout_has_them_next_to_the_package_and_a_wheel_within_it(tmp_path):
    package = tmp_path / "mia_jax"
    package.mkdir()
    assert shipped.folder() == ROOT / "configs"
    assert shipped.folder(package) == tmp_path / "configs"
    (package / "configs").mkdir()
    assert shipped.folder(package) == package / "configs"


def test_every_file_of_configs_has_its_name():
    files = {p.relative_to(ROOT / "configs").as_posix() for p in (ROOT / "configs").rglob("*.py")}
    assert {f"{name}.py" for name in shipped.names()} == files
    for name in shipped.names():
        assert shipped.path_of(name) == ROOT / "configs" / f"{name}.py"
    assert shipped.path_of("quickstart.py") is None


def test_a_name_is_taken_from_any_folder_and_a_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()  # a workdir of that name is no config
    assert command_line.check_file("quickstart") == ROOT / "configs" / "quickstart.py"
    (tmp_path / "lenet").write_text("")
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "lenet").write_text("")
    assert command_line.check_file("zoo/lenet") == pathlib.Path("zoo/lenet")


@pytest.mark.parametrize(
    "typed, hint",
    (
        ("quickstrat", "Did you mean quickstart?"),
        ("lenet", "Did you mean zoo/lenet?"),
        ("configs/quickstart.py", "Did you mean quickstart?"),
        ("configs/mime.py", "Did you mean configs/mine.py?"),
        ("quickstart,models=16", "follow a colon, as in quickstart:models=16"),
    ),
)
def test_an_unknown_name_lists_all_and_the_closest(typed, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.py").write_text('"""Mine."""\n')
    with pytest.raises(FileNotFoundError) as refusal:
        command_line.check_file(typed)
    text = str(refusal.value)
    assert hint in text and "zoo/lenet" in text and "files here: configs/mine.py." in text


def test_the_list_has_names_and_the_files_of_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert set(listing.config_lines()) == set(shipped.names())
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.py").write_text('"""Mine.\n\nMore."""\n')
    monkeypatch.chdir(tmp_path)
    lines = listing.config_lines()
    assert set(lines) == {*shipped.names(), "configs/mine.py"}
    assert lines["configs/mine.py"] == "Mine." and lines["quickstart"].startswith("Runs 14 attacks")
