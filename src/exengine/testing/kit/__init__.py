"""The conformance kit, one module for each group of promises."""
