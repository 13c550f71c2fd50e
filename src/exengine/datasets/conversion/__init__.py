"""Converts datasets: selects frames, copies them to another backend, and compares the two datasets."""
