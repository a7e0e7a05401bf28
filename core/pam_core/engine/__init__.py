"""What stands between callers and a loaded model: the cache of image embeddings."""
