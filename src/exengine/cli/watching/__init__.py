"""The display of ``exengine acquire --watch``: numbers about a run and its newest frame, on a terminal."""
