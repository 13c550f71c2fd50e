"""A single report on a plugin's contract, documentation, example, packaging and conformance."""
