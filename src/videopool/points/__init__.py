"""A point: one configuration as objects, with its identity and the lifecycle of its results."""
