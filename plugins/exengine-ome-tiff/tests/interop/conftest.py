"""The interoperability tests, which the tox environment ``interop`` runs; other test runs do not collect them."""

import os

collect_ignore_glob = [] if os.environ.get("EXENGINE_INTEROP") else ["test_*.py"]
