"""Training: pre-training, search and retraining, as functions over plain state."""
