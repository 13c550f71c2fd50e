"""``python -m exengine`` is the ``exengine`` command."""

import sys

from exengine.cli.main import main

sys.exit(main())
