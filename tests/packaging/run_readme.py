"""Writes a new plugin and runs the commands of its README, in a fresh virtual environment, as its author would.

``python run_readme.py FOLDER`` shows each command and what it prints. It ends with the first command that
fails.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = "my-storage"


def main(folder: Path) -> int:
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = folder / "environment"
    venv.create(environment, with_pip=True)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "EXENGINE", "PIP_TARGET"))
    }
    env |= {
        "PATH": f"{scripts}{os.pathsep}{env['PATH']}",
        "VIRTUAL_ENV": str(environment),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "COLUMNS": "100",
    }
    run(f"pip install -q {ROOT}", folder, env)
    run(f"exengine backends new {NAME} --yes", folder, env)
    project = folder / f"exengine-{NAME}"
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```", (project / "README.md").read_text(encoding="utf-8"))
    commands = [command for block in blocks for command in block.splitlines()]
    assert len(commands) >= 5, "the README has lost its commands"
    for command in commands:
        run(command, project, env)
    page = project / "docs" / "_build" / "html" / "usage" / "backends" / f"{NAME}.html"
    assert page.is_file(), f"{page} was not built"
    sys.stdout.write(f"all green in {time.monotonic() - started:.0f} s\n")
    return 0


def run(command: str, folder: Path, env: dict[str, str]) -> None:
    sys.stdout.write(f"$ {command}\n")
    sys.stdout.flush()
    subprocess.run(command, shell=True, cwd=folder, env=env, check=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
