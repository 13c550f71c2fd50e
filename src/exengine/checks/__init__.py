"""One report of everything known about a plugin: contract, documentation, example, packaging, conformance."""
