"""The tests of the conformance kit, one module for each group of promises."""
