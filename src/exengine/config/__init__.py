"""Settings: their table, the layers that they come from, config files and the JSON Schema."""
