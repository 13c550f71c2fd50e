"""The contract, the registry, and the way of a frame; knows no format and no plugin."""
