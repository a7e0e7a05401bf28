"""The four small networks behind the embedded model ``lite``, as plain PyTorch modules."""
