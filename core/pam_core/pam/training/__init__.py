"""Conversations as ids and labels, and the loss."""
