"""Settings: their table, the layers they come from, config files and the JSON Schema."""
