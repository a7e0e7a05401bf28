"""Where pictures come from and where results go: sources, sinks, and runs on Ray."""
