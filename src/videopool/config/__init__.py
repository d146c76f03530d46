"""The configuration: nodes made into objects, choices of groups, errors about settings."""
