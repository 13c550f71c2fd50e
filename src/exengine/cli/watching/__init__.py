"""The display of ``exengine acquire --watch``: the progress of a run and its newest frame, on a terminal."""
