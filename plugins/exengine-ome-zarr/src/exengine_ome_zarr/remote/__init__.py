"""Datasets in object storage: written through a spool on the local disk, and read with range requests."""
