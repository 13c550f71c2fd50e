"""The documentation of exengine-npy-folder. ExEngine writes the page in ``usage/``."""

project = "exengine-npy-folder"
author = "The ExEngine developers"
exclude_patterns = ["_build"]

extensions = ["exengine.sphinxext"]
exengine_plugins = ["exengine-npy-folder"]
