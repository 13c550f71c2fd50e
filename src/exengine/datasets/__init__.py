"""From a path to a dataset: create, open, overwrite, verify and recover one."""
