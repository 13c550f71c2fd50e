"""Continues an existing dataset: its writer, and the reopening of its finished shards."""
