"""Continues an existing dataset: opens its finished shards again, and writes further frames."""
