"""The format of an OME-Zarr dataset on the disk: layout, journal, shards and documents."""
