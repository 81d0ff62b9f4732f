"""Subcommands: a file of mia_jax/commands is one; what it refuses ends with a code of its own."""

import argparse
import importlib
import sys
import types

import pytest

from mia_jax import commands


@pytest.mark.parametrize("name", commands.names())
def test_every_file_is_a_subcommand_with_a_line_and_a_help(name, capsys):
    assert commands.about(name).endswith(".")
    assert callable(importlib.import_module(f"mia_jax.commands.{name}").main)
    assert commands.run(name, ["--help"]) == 0
    assert f"usage: mia-jax {name}" in capsys.readouterr().out


def test_the_help_has_a_line_for_each():
    lines = commands.described().splitlines()[2:]
    assert [line.split()[:2] for line in lines] == [["mia-jax", n] for n in commands.names()]


def test_an_unknown_one_names_the_closest(capsys):
    assert commands.run("reprot", []) == commands.MISTAKE
    text = capsys.readouterr().err
    assert "no subcommand 'reprot'. Did you mean 'report'?" in text and "--config" in text


@pytest.fixture
def answer(monkeypatch):
    """Puts `main` in the place of a subcommand and runs it."""

    def run(main, *arguments):
        module = types.SimpleNamespace(main=main)
        monkeypatch.setitem(sys.modules, f"mia_jax.commands.{commands.names()[0]}", module)
        return commands.run(commands.names()[0], arguments)

    return run


@pytest.mark.parametrize("code", (0, 1, 2, 3))
def test_an_answer_is_the_exit_code(code, answer):
    assert answer(lambda arguments: code) == code


def test_a_mistake_is_no_answer(answer, capsys):
    def refuses(arguments):
        raise ValueError("limit='x' must be a number.")

    def reads(arguments):
        argparse.ArgumentParser(prog="mia-jax x").parse_args(arguments)
        return 0

    assert answer(refuses) == commands.MISTAKE
    assert "error: limit='x' must be a number." in capsys.readouterr().err
    assert answer(reads, "--nonsense") == commands.MISTAKE
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err
    assert answer(reads) == 0


def test_an_error_of_the_code_is_not_hidden(answer):
    def breaks(arguments):
        raise KeyError("a mistake of the code")

    with pytest.raises(KeyError):
        answer(breaks)


def test_the_report_of_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert commands.run("report", [str(tmp_path)]) == commands.MISTAKE
    assert "holds no report.json" in capsys.readouterr().err
