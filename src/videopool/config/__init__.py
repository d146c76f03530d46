"""Configuration: nodes into objects, values checked."""
