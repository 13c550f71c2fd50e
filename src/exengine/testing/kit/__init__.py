"""The tests of the conformance kit, with one module for each group of promises."""
