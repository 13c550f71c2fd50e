"""A terminal for tests: runs a command on a pseudo-terminal, and shows what a user would see."""

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time

_CONTROL = re.compile(rb"\x1b\[(\??)([\d;]*)([A-Za-z])")
_OWN_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"


class Terminal:
    """The terminal of a program. Nothing is read from the program before :meth:`read`.

    Attributes
    ----------
    raw : bytes
        Everything that was read.
    process : subprocess.Popen
    """

    def __init__(self, *arguments, columns=90, lines=30, program=("-m", "exengine"), **environment):
        self.columns, self.lines = columns, lines
        self.raw = b""
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OWN_TERMINAL, *program, *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment},
        )
        os.close(slave)

    def read(self, until=None, timeout_s=60):
        """Read until the screen shows a text, or until the program has ended."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    data = os.read(self._master, 2**16)
                except OSError:  # the program has ended
                    data = b""
                self.raw += data
                if not data:
                    break
            elif until is not None and until.encode() in self.raw:
                return  # after a pause, so that the view is complete
        assert until is None, f"the terminal never showed {until!r}: {self.raw[-2000:]!r}"
        self.process.wait(timeout_s)

    def type(self, text):
        os.write(self._master, text)

    def screen(self):
        """Return the lines of text, and the foreground color of each cell, or None."""
        cells = [[" "] * self.columns for _ in range(self.lines)]
        colors = [[None] * self.columns for _ in range(self.lines)]
        y = x = at = 0
        color = None
        raw = self.raw.rpartition(b"\x1b[?1049")[2]  # only what is on the screen that is shown now
        text = re.compile(rb"[^\x1b]+")
        while at < len(raw):
            control, plain = _CONTROL.match(raw, at), text.match(raw, at)
            if control:
                at, numbers = control.end(), [int(part or 0) for part in control[2].split(b";")]
                if control[3] == b"H":
                    y, x = (*(number - 1 for number in numbers), 0, 0)[:2] if control[2] else (0, 0)
                elif control[3] == b"K":
                    cells[y][x:] = [" "] * (self.columns - x)
                elif control[3] == b"J":
                    for line in range(0 if numbers == [2] else y, self.lines):
                        cells[line] = [" "] * self.columns
                elif control[3] == b"m":
                    color = tuple(numbers[2:5]) if numbers[:2] == [38, 2] else None
            elif plain:
                at = plain.end()
                for character in plain[0].decode(errors="replace"):
                    if character in "\r\n":
                        y, x = (y, 0) if character == "\r" else (min(y + 1, self.lines - 1), x)
                    elif x < self.columns:
                        cells[y][x], colors[y][x] = character, color
                        x += 1
            else:
                at += 1  # the rest of a control sequence has not been read yet
        return ["".join(line).rstrip() for line in cells], colors

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._master)
