"""The ``exengine`` command, with one module per verb."""
