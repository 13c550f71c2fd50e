"""The building blocks of storage backends: state, checks, place, lock and manifest of a dataset."""
