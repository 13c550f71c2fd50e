"""Tasks that the kit runs in child processes; ``exengine.testing.children`` starts them."""
