"""The region model and its inference. Knows no plugin and no labeling or robotics host."""
