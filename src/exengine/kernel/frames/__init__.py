"""Frames apart from pixels: metadata, the index of coordinates, the ledger."""
