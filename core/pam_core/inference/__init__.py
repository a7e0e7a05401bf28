"""Inference that works with any region model: caching and finding regions without a prompt."""
