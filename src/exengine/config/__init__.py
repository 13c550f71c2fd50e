"""Settings: the table of settings, the layers that set them, config files, and the JSON Schema."""
