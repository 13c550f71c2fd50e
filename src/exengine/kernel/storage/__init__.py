"""What a storage backend builds on: states, checks, place, lock and manifest of a dataset."""
