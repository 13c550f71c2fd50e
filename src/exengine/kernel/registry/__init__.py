"""The plugin registry: finds, loads and checks plugins, and knows their options and documentation."""
