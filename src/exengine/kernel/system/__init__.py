"""The operating system: files, locks, syncing, the end of the process, untrusted text."""
