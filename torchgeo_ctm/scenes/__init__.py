"""A raster scene as input: files, bands, windows."""
