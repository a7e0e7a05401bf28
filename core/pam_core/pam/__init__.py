"""The Perceive Anything Model: its parts as torch modules, checkpoints, generation, parity. Knows no plugin."""
