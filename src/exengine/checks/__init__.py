"""Everything that is known about a plugin: contract, documentation, example, packaging, conformance."""
