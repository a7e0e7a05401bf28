"""Measuring a model: against what the reference computed, and, one day, on benchmarks."""
