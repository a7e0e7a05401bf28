"""The plugins that come with the distribution. They use the same hooks as anyone else's."""
