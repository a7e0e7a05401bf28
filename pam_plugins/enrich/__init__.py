"""Enrichment of whole data sets: from a source of pictures through a model into a sink, resumable by id."""
