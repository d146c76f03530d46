"""Jobs: one short script each."""
