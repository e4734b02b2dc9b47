"""Where a process meets its surroundings: standard streams, the encoding of words and names, a home that is not there.

After `prepare`, no print can end a command: a character the terminal lacks is written as \\u2026, and what nobody can
receive (a closed stream, a full disk under a log) is dropped.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path

# Control characters (they move the cursor, set titles, ring) and those that turn the direction of text.
_HIDDEN = {code: 0xFFFD for code in (*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_HIDDEN |= {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}


def printable(text: str) -> str:
    """Text of records and models for a terminal: control characters as pictures, one for one.

    >>> printable("a\\x1b[31mb")
    'a␛[31mb'
    """
    return text.translate(_HIDDEN)


class Stream(io.TextIOWrapper):
    """A standard stream that a full disk does not turn into the end of a run; it remembers what was in the way."""

    lost: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            return self._lose(error, len(text))

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._lose(error, 0)

    def _lose(self, error: OSError, count: int) -> int:
        if isinstance(error, BrokenPipeError) and self.fileno() == 1:
            raise error  # nobody reads any more: the command is over
        self.lost = error
        _to_nowhere(self.fileno())
        return count


def prepare() -> None:
    """Make the streams and the environment of this process such as Python's libraries expect them."""
    if sys.getfilesystemencoding() == "ascii" and not sys.flags.utf8_mode:
        # Python itself takes the C locale for UTF-8, unless it was told not to; names of files depend on it.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file to be opened would get its number, and what is printed
            _to_nowhere(number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            encoding, lines = stream.encoding, stream.line_buffering
            own = Stream(stream.detach(), encoding, "backslashreplace", line_buffering=lines or name == "stderr")
            setattr(sys, name, own)
            setattr(sys, f"__{name}__", own)
    _name_user()
    _give_matplotlib_a_folder()


def drop_output() -> None:
    """Nothing more can be printed; Python flushes once more at its end."""
    _to_nowhere(1)


def _to_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


def _name_user() -> None:
    """A user without an entry in passwd gets a name and a home, which libraries ask for (or make a folder named ~)."""
    import getpass

    if not os.path.isabs(os.path.expanduser("~")):
        os.environ["HOME"] = "/"
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["LOGNAME"] = f"uid{os.getuid()}"


def _give_matplotlib_a_folder() -> None:
    """A home that cannot be written costs matplotlib two lines at every start; a folder for this process costs none."""
    if "MPLCONFIGDIR" in os.environ or sys.platform == "win32":
        return
    home = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "matplotlib"
    there = next((folder for folder in (home, *home.parents) if folder.exists()), home)
    if not (home.is_absolute() and os.access(there, os.W_OK | os.X_OK)):
        _FOLDERS.append(tempfile.TemporaryDirectory(prefix="alpaca_lora-"))  # removed at the end of the process
        os.environ["MPLCONFIGDIR"] = _FOLDERS[0].name


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []
