"""A point: one configuration made into objects, with what identifies it."""
