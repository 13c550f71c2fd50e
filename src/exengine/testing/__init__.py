"""Helpers for the tests of backends; never imported by the kernel."""
