"""The models that come with the distribution, each a plugin."""
