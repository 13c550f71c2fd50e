"""The peak of the memory is that of the process itself, and growth is measured from the current size."""

import subprocess
import sys

import pytest

from exengine.testing import forget_peak, peak_mib

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="other systems only have getrusage"
)

PARENT = """
import subprocess, sys
held = bytearray(b"1" * (300 * 2**20))
child = "from exengine.testing import peak_mib; print(peak_mib())"
print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout)
"""


def test_the_peak_of_a_child_is_not_that_of_its_parent():
    done = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, check=True)
    assert 5 < float(done.stdout) < 200


def test_memory_that_was_freed_before_does_not_hide_growth():
    freed = bytearray(b"1" * (200 * 2**20))
    del freed
    before = forget_peak()
    held = bytearray(b"1" * (100 * 2**20))
    assert 90 < peak_mib() - before < 250
    assert held
