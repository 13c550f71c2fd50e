"""The memory available in the system and in the control groups of the process."""

import contextlib


def available_bytes(
    meminfo: str = "/proc/meminfo",
    self_cgroup: str = "/proc/self/cgroup",
    cgroup_root: str = "/sys/fs/cgroup",
) -> int | None:
    """Return how many bytes the process can still allocate; None if the system does not report it.

    Parameters
    ----------
    meminfo, self_cgroup, cgroup_root : path
        The Linux files to read; see https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    """
    found = [_available(meminfo), *_groups(self_cgroup, cgroup_root)]
    return min((size for size in found if size is not None), default=None)


def _available(meminfo: str) -> int | None:
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _groups(self_cgroup: str, root: str) -> list[int | None]:
    """Return the unused memory of each control group, from the process's own group up to the root."""
    unused: list[int | None] = []
    for line in _lines(self_cgroup):
        number, _, path = line.partition("::")
        if number != "0" or not path:
            continue
        parts = [part for part in path.strip().split("/") if part not in ("", "..")]
        unused += [_unused("/".join((root, *parts[:depth]))) for depth in range(len(parts), -1, -1)]
    return unused


def _unused(group: str) -> int | None:
    limit, used = _number(f"{group}/memory.max"), _number(f"{group}/memory.current")
    if limit is None or used is None:
        return None
    # The page cache counts as used memory but is freed when memory is short.
    cache = sum(
        int(line.split()[1]) for line in _lines(f"{group}/memory.stat") if line.startswith("inactive_file ")
    )
    return max(0, limit - used + cache)


def _number(path: str) -> int | None:
    for line in _lines(path):
        with contextlib.suppress(ValueError):
            return int(line)
    return None


def _lines(path: str) -> list[str]:
    with contextlib.suppress(OSError, UnicodeDecodeError), open(path, encoding="utf-8") as file:
        return file.read().splitlines()
    return []
