"""The ``exengine`` command; one module per verb."""
