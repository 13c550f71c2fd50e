"""The documentation of exengine-npy-folder. The page below ``usage/`` is written by ExEngine."""

project = "exengine-npy-folder"
author = "The ExEngine developers"
exclude_patterns = ["_build"]

extensions = ["exengine.sphinxext"]
exengine_plugins = ["exengine-npy-folder"]
