"""Checks that the conformance kit, run as root, changes nothing outside its own folder.

``python tests/campaigns/kit_reach.py [--only WORDS] [--spoil] [--save]``

The whole kit runs under ``strace``, in a process with its own mounts, on ``RecognisesEverything`` from
``tests/backends/broken_backends.py``, whose ``can_open`` always returns True. No call that unlinks, renames,
truncates, creates a node, a link or a folder, changes a mode or an owner, or opens a file for writing may
name anything outside the kit's folder. ``--only`` runs a part of the kit, like ``pytest -k``. With
``--spoil``, the backend writes outside this folder, which the campaign must detect.

As root, ``/dev`` is replaced with nodes that were created for the run. As an ordinary user, the kit runs
without this replacement.
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import results
from mounts import CannotRunError, live_apart

HERE = Path(__file__).parent
BACKENDS = HERE.parent / "backends" / "broken_backends.py"
NAME = "recogniseseverything"
CALLS = (
    "open,openat,openat2,creat,unlink,unlinkat,rename,renameat,renameat2,rmdir,mkdir,mkdirat,mknod,mknodat,link,linkat,"
    "symlink,symlinkat,truncate,chmod,fchmodat,fchmodat2,chown,lchown,fchownat,mount,umount2,pivot_root,chroot,setxattr,"
    "lsetxattr,removexattr,lremovexattr,utimensat,bind"
)
TRACED = "trace=?" + CALLS.replace(",", ",?")  # an older strace does not support all of them
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND|O_TMPFILE")
_LINE = re.compile(r"^\d+ +(\w+)\((.*)$")
_PART = re.compile(r'(?:(AT_FDCWD|\d+)<((?:[^>\\]|\\.)*)>, )?"((?:[^"\\]|\\.)*)"')
_ALLOWED = ("/dev/null",)  # the standard library opens this file to discard output
LEAST_CALLS = 1000
FOUND = "test_reopening_is_as_declared"  # the kit reports this for such a backend
SPOIL = """
    def finish_frames(self):
        with open({path!r}, "a") as file:
            file.write("x")
        super().finish_frames()
"""


def hide_devices(folder: Path) -> None:
    """Replace ``/dev`` with a folder of new nodes, for this process and its children."""
    folder.mkdir()
    for name, (major, minor) in DEVICES.items():
        os.mknod(folder / name, 0o20666, os.makedev(major, minor))
        os.chmod(folder / name, 0o666)
    for name, target in {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}.items():
        (folder / name).symlink_to(target)
    (folder / "shm").mkdir()
    ended = subprocess.run(["mount", "--bind", folder, "/dev"], check=False, capture_output=True, text=True)
    if ended.returncode:
        raise CannotRunError(f"mount --bind: {ended.stderr.strip()}")


def install(site: Path, escaped: str) -> None:
    """Install the broken backends in a folder; if a path is given, one of them writes there."""
    site.mkdir()
    source = BACKENDS.read_text(encoding="utf-8")
    if escaped:
        source += "\n\nclass Spoilt(RecognisesEverything):\n    __doc__ = 'Write outside.'\n" + SPOIL.format(
            path=escaped
        )
    (site / "broken_backends.py").write_text(source)
    info = site / "broken_backends-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-backends\nVersion: 2.5\n")
    target = "Spoilt" if escaped else "RecognisesEverything"
    (info / "entry_points.txt").write_text(
        f"[exengine.storage_backends]\n{NAME} = broken_backends:{target}\n"
    )


def reached(trace: Path, own: str) -> list[str]:
    """Return the calls in a trace that may change something outside a folder."""
    found = []
    with open(trace, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            match = _LINE.match(line)
            if match is None:
                continue
            call, rest = match.groups()
            if call.startswith("open") and not _WRITES.search(rest):
                continue
            if "= -1 ENOENT" in line and call.startswith("open") and "O_CREAT" not in rest:
                continue
            for path in _paths(call, rest):
                if path not in _ALLOWED and path != own and not path.startswith(own + "/"):
                    found.append(line.strip()[:300])
                    break
    return found


def _paths(call: str, rest: str) -> list[str]:
    """Return the absolute paths that a call changes; the target of a symbolic link does not count."""
    parts = [(folder or "", name) for _, folder, name in _PART.findall(rest)]
    if call in ("symlink", "symlinkat"):
        parts = parts[1:]
    if call == "bind":
        parts = [("", name) for name in re.findall(r'sun_path="([^"]*)"', rest)]
    if call in ("setxattr", "lsetxattr", "removexattr", "lremovexattr", "mount"):
        parts = parts[-1:] if call == "mount" else parts[:1]
    paths = []
    for folder, name in parts:
        if name.startswith("/proc/self/fd/"):  # a socket with a long path is bound relative to an open folder
            continue
        paths.append(os.path.normpath(os.path.join(folder, name)))
    return paths


def run(only: str, spoil: bool, keep: bool) -> int:
    """Run the campaign; return its exit code."""
    if shutil.which("strace") is None:
        raise CannotRunError("there is no program strace")
    with contextlib.ExitStack() as stack:
        # The folder /dev is hidden below, and temporary folders can be in it.
        place = "/var/tmp" if Path(tempfile.gettempdir()).is_relative_to("/dev") else None
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="exengine-reach-", dir=place))
        work = Path(folder).resolve()
        own = work / "kit"
        (own / "tmp").mkdir(parents=True)
        install(work / "site", str(work / "escaped") if spoil else "")
        if os.geteuid() == 0:
            live_apart()
            hide_devices(work / "dev")
            stack.callback(subprocess.run, ["umount", "/dev"], check=False)
        trace = work / "trace"
        command = [
            "strace", "-f", "-qq", "-y", "-s", "4096", "-e", TRACED, "-o", trace,
            sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", f"--basetemp={own / 'base'}",
            f"--rootdir={own}", "--exengine-backend", NAME, *(["-k", only] if only else []),
        ]  # fmt: skip
        environment = {
            **os.environ, "PYTHONPATH": str(work / "site"), "TMPDIR": str(own / "tmp"), "HOME": str(own),
            "XDG_CONFIG_HOME": str(own / "config"), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        done = subprocess.run(
            list(map(str, command)), check=False, capture_output=True, text=True, cwd=own, env=environment
        )
        if not trace.exists():
            raise CannotRunError(f"strace: {done.stderr.strip()[-300:]}")
        last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:] or [""]
        with open(trace, encoding="utf-8", errors="replace") as lines:
            count = sum(1 for _ in lines)
        outside = reached(trace, str(own))
    broken = [f"BROKEN: the kit reaches outside its folder: {line}" for line in outside]
    failed = [
        line
        for line in done.stdout.splitlines()
        if line.startswith(("FAILED", "ERROR")) and FOUND not in line
    ]
    if failed or done.returncode not in (0, 1):
        broken.append(f"BROKEN: the kit ended with {done.returncode}: {done.stdout[-3000:]}")
    if count < LEAST_CALLS:
        broken.append(f"BROKEN: {count} calls were traced, too few for the kit")
    figures = {
        "tests of the kit": sum(map(int, re.findall(r"(\d+) (?:passed|failed)", last[0]))),
        "as": "root, with mounts of its own" if os.geteuid() == 0 else "an ordinary user",
        "calls that change something, or open a file": count,
        "outside its folder": len(outside),
    }
    return results.conclude(
        "kit_reach", "python tests/campaigns/kit_reach.py", None, figures, broken, keep=keep
    )


def main() -> int:
    """Run the campaign, print the results, and return 1 if a promise was broken."""
    options = argparse.ArgumentParser(description="what the conformance kit reaches")
    options.add_argument(
        "--only", default="", metavar="WORDS", help="run only a part of the kit, like pytest -k"
    )
    options.add_argument(
        "--spoil", action="store_true", help="let the backend write outside its folder, which must be found"
    )
    options.add_argument("--save", action="store_true", help="save the figures for the documentation")
    given = options.parse_args()
    try:
        return run(given.only, given.spoil, given.save)
    except CannotRunError as error:
        print(f"cannot run: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
