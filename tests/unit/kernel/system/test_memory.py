"""Available memory: the least of the system and its control groups."""

from exengine.kernel.system import memory


def test_memory_is_the_least_of_what_the_system_and_the_control_groups_have(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 100 kB\nMemAvailable: 50 kB\n")
    group = tmp_path / "cgroup" / "a" / "b"
    group.mkdir(parents=True)
    (tmp_path / "self").write_text("0::/a/b\n")
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.max").write_text("40960\n")
    (group.parent / "memory.current").write_text("10240\n")
    (group.parent / "memory.stat").write_text("inactive_file 1024\n")
    available = memory.available_bytes(str(meminfo), str(tmp_path / "self"), str(tmp_path / "cgroup"))
    assert available == 40960 - 10240 + 1024
    (group.parent / "memory.max").write_text("max\n")
    assert memory.available_bytes(str(meminfo), str(tmp_path / "self"), str(tmp_path / "cgroup")) == 51200
    assert memory.available_bytes("/nowhere", "/nowhere", "/nowhere") is None
