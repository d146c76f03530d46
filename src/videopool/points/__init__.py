"""Points: one configuration made into objects."""
