"""Frame sources that are included in ExEngine. Importing this package does not import the sources."""
