"""The building blocks of storage backends: a dataset's state, checks, location, lock and manifest."""
