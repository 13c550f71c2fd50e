"""Continuing a dataset: the writer of one that exists, and its finished shards, which are opened again."""
