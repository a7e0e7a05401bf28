"""The Perceive Anything Model: its parts as torch modules. Knows no plugin and no file but checkpoints."""
