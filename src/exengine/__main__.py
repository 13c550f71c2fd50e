"""Runs the ``exengine`` command for ``python -m exengine``."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - a clone can be run by any Python
    sys.exit("exengine needs Python 3.11 or newer, but this is Python {}.{}".format(*sys.version_info[:2]))

from exengine.cli.main import main

sys.exit(main())
