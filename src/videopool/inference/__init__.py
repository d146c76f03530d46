"""Clips through a backbone: weights, batches, the feature store, the predict loop."""
