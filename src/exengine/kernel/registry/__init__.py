"""The plugin registry: finds, loads and checks plugins, and reads their options and documentation."""
