"""Regions drawn on pictures: overlay PNGs, an HTML page, an annotated video."""
