"""The interface to the operating system: files, locks, syncing, process exit and untrusted text."""
