"""Progress for people: silent in a program without a terminal, a bar on one, lines elsewhere."""

import io
import sys

import mia_jax
from mia_jax.runtime.progress import Progress
from tests.answered import QUICK, arrays


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_say_what_is_done_what_is_left_and_a_note_in_brackets():
    file = io.StringIO()
    progress = Progress(title="train", total=6400, unit="epoch", file=file, seconds=0.0)
    progress.advance(2856, "loss 0.0006")
    assert file.getvalue().startswith(
        "train: 2,856 of 6,400 epochs, about "
    ) and file.getvalue().endswith(" left (loss 0.0006)\n")


def test_without_lines_there_is_a_bar_on_a_terminal_and_nothing_elsewhere():
    quiet, bar = io.StringIO(), Terminal()
    for file in (quiet, bar):
        progress = Progress(
            title="report", total=3, unit="part", file=file, seconds=0.0, lines=False
        )
        progress.advance(1, "slices")
        progress.close()
    assert quiet.getvalue() == "" and "report" in bar.getvalue() and "slices" in bar.getvalue()


def test_an_audit_in_a_program_shows_its_stages_on_a_terminal_alone(monkeypatch, capsys):
    signals = arrays(examples=60)
    mia_jax.audit(signals, attacks="threshold_loss", **QUICK)
    assert "report" not in capsys.readouterr().err
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    mia_jax.audit(signals, attacks="threshold_loss", **QUICK)
    assert "report" in terminal.getvalue() and "attack" in terminal.getvalue()
