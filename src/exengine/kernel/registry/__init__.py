"""The plugin registry, which finds, loads and checks plugins, and reads their options and documentation."""
