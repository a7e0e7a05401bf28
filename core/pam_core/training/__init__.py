"""Training: conversations about regions as token ids and labels, and the loss on them."""
