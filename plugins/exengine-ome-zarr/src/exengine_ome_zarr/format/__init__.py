"""The bytes and names of an OME-Zarr dataset: layout, journal, shards and documents."""
