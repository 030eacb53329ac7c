"""What the commands print: whole words at 80 columns, no escape codes under NO_COLOR, whole lines in a pipe."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from rich.console import Console

from convlab.cli.screen import print_line, print_table

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
COMMAND = (sys.executable, "-c", "from convlab.cli.main import main; main()")
KEPT = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}


def on_a_terminal(*arguments: str, columns: int = 80, **environment: str) -> str:
    """What a command writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = KEPT | {"TERM": "xterm-256color"} | environment
    process = subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    while True:
        try:
            some = os.read(ours, 2**16)
        except OSError:  # Linux says so when the other end is closed.
            break
        if not some:
            break
        written += some
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return written.decode()


def test_the_demo_fits_on_a_terminal(backends):
    text = on_a_terminal("demo", "--backends", ",".join(backends))
    plain = ESCAPE.sub("", text)
    assert plain != text
    lines = plain.splitlines()
    assert max(map(len, lines)) <= 80
    for name in backends:
        assert sum(re.match(rf"│ {name} +│", line) is not None for line in lines) == 2
    for whole in ("edges, first row", "edges, transposed", "random 64x64 image, 5x5 kernel", "0.9890 -0.9890"):
        assert whole in plain
    assert "…" not in plain


def test_no_color_means_no_escape_codes():
    for arguments in (("demo", "--backends", "numpy"), ("backends",)):
        text = on_a_terminal(*arguments, NO_COLOR="1")
        assert "numpy" in text
        assert "\x1b" not in text


def test_a_pipe_gets_whole_lines():
    done = subprocess.run(
        [*COMMAND, "demo", "--backends", "numpy"],
        capture_output=True,
        text=True,
        check=True,
        env=KEPT | {"COLUMNS": "30"},
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert "…" not in done.stdout
    assert "│ numpy       │ 19 25  │ 5 11   │ 0 1 0 0 0 -1 0   │ 0 0 0 0 0         │" in done.stdout


@pytest.mark.parametrize(
    ("terminal", "expected"),
    [
        (True, ["one", "  size: 2 3", "  where it is: far away"]),
        (False, ["│ one  │ 2 3  │ far away    │"]),
    ],
)
def test_a_table_that_is_too_wide(terminal, expected):
    file = io.StringIO()
    console = Console(file=file, width=24, force_terminal=terminal, color_system=None)
    print_table(console, ["name", "size", "where it is"], [["one", "2 3", "[red]far away[/]"]])
    lines = file.getvalue().splitlines()
    assert [line for line in lines if line in expected] == expected


@pytest.mark.parametrize(
    ("terminal", "expected"),
    [(True, ["padding [bold] and", "another word"]), (False, ["padding [bold] and another word"])],
)
def test_a_line_is_wrapped_between_words_on_a_terminal_alone(terminal, expected):
    file = io.StringIO()
    print_line(
        Console(file=file, width=20, force_terminal=terminal, color_system=None), "padding [bold] and another word"
    )
    assert [line.rstrip() for line in file.getvalue().splitlines()] == expected
