"""The process that forks for each task: its forks are like processes of their own, and none outlives it."""

import json
import os
import signal
import subprocess
import sys

import pytest

from exengine.kernel.system import fork_server

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tasks are forked only on Linux")

SERVE = (
    "import sys, json, os, signal, resource; from exengine.kernel.system.fork_server import serve; "
    "verb, text = serve(int(sys.argv[1])); exec(text)"
)
LOOK = """
descriptors = {}
for number in os.listdir("/proc/self/fd"):
    if os.path.exists(f"/proc/self/fd/{number}") and "/fd" not in os.readlink(f"/proc/self/fd/{number}"):
        descriptors[number] = os.get_inheritable(int(number))
about = {
    "descriptors": descriptors,
    "threads": len(os.listdir("/proc/self/task")),
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "umask": os.umask(0o22),
    "signals": {int(s): str(signal.getsignal(s)) for s in signal.valid_signals()},
    "limits": [resource.getrlimit(n) for n in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)],
    "locks": [line for line in open("/proc/locks") if f" {os.getpid()} " in line],
    "group": os.getpgid(0),
    "input": sys.stdin.readline(),
}
print(json.dumps(about), flush=True)
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that forks a process for a program, and stop all servers in the end."""
    with (tmp_path / "errors").open("wb") as errors:

        def start(text, own_session=False):
            command, environment = [sys.executable, "-c", SERVE], dict(os.environ)
            task = fork_server.Task("verb", text, environment, errors.fileno(), own_session=own_session)
            return fork_server.fork("test", "a", command, task)

        yield start
        fork_server.stop_servers()


def end(process):
    process.stdin.close()
    with process.stdout:
        said = process.stdout.read()
    return process.wait(20), said


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_fork_is_like_a_process_that_was_started_on_its_own(start, tmp_path, monkeypatch):
    assert end(start("pass")) == (0, "")  # the server exists before the folder and the variable change
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "this one")
    own = subprocess.Popen(
        [sys.executable, "-c", f"import sys, json, os, signal, resource\n{LOOK}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=dict(os.environ),
    )
    wanted = json.loads(own.communicate("hello\n", timeout=20)[0])
    forked = start(LOOK)
    forked.stdin.write("hello\n")
    forked.stdin.flush()
    code, said = end(forked)
    assert code == 0, (tmp_path / "errors").read_text()
    got = json.loads(said)
    assert set(got.pop("environment").items()) ^ set(wanted.pop("environment").items()) == set()
    assert got == wanted  # descriptors, threads, locks, handlers of signals, limits ...
    assert wanted["input"] == "hello\n" and sorted(wanted["descriptors"]) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("text", "code"),
    [("sys.exit(3)", 3), ("raise ValueError(1)", 1), ("os.abort()", -signal.SIGABRT), ("os._exit(9)", 9)],
)
def test_the_exit_code_is_that_of_the_process_and_the_server_goes_on(start, text, code):
    assert end(start(text))[0] == code
    assert end(start("print(verb)")) == (0, "verb\n")


def test_functions_that_are_registered_for_exit_run(start):
    text = "import atexit; atexit.register(print, 'the end'); import threading; print(threading.main_thread().name)"
    assert end(start(text)) == (0, "MainThread\nthe end\n")


def test_a_process_is_killed_and_the_others_live_on(start):
    one, other = (start("print(os.getpid(), flush=True); sys.stdin.read()") for _ in range(2))
    assert one.stdout.readline() == f"{one.pid}\n"
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(0.05)
    one.kill()
    assert one.wait(20) == -signal.SIGKILL and is_running(other.pid)
    one.kill()  # has no effect
    assert end(other) == (0, f"{other.pid}\n") and end(one)[0] == -signal.SIGKILL


def test_no_fork_outlives_its_server(start):
    process = start("print('here', flush=True); import time; time.sleep(60)")
    assert process.stdout.readline() == "here\n"
    fork_server.stop_servers()
    assert process.stdout.read() == ""  # the end of the file: the process has ended
    assert end(process)[0] == -signal.SIGKILL


def test_a_package_that_starts_a_thread_is_left_out(start, tmp_path, monkeypatch):
    source = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    (tmp_path / "starter").mkdir()
    (tmp_path / "starter" / "__init__.py").write_text("")
    (tmp_path / "starter" / "inner.py").write_text(source)
    (tmp_path / "quiet.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    text = "print(sorted({'quiet', 'starter'} & sys.modules.keys()), len(os.listdir('/proc/self/task')))"
    first = start(text)
    first.load(["quiet", "starter.inner"])
    assert end(first) == (0, "[] 1\n")
    assert end(start(text)) == (0, "['quiet'] 1\n")


def test_if_the_server_cannot_fork_each_process_starts_on_its_own(start, tmp_path, monkeypatch):
    assert end(start("pass")) == (0, "")
    for _, server in fork_server._servers.values():
        server._process.kill()
        server._process.wait()
    assert start("pass") is None
    (tmp_path / "usercustomize.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    )
    command = [
        sys.executable,
        "-c",
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport usercustomize\n{SERVE}",
    ]
    assert (
        fork_server.fork("test", "b", command, fork_server.Task("verb", "pass", dict(os.environ), 2)) is None
    )


def test_forks_draw_different_random_numbers(start):
    text = "import random, numpy.random; print(random.random(), numpy.random.random())"
    first = start(text)
    first.load(["random", "numpy.random"])
    assert end(first)[0] == 0
    drawn = {end(start(text))[1] for _ in range(2)}
    assert len({number for line in drawn for number in line.split()}) == 4


def test_a_fork_may_have_a_session_of_its_own(start):
    text = "print(os.getsid(0) == os.getpgid(0) == os.getpid())"
    assert end(start(text)) == (0, "False\n")
    assert end(start(text, own_session=True)) == (0, "True\n")
