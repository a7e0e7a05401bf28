"""Compare the model with tensors recorded from the reference implementation."""
