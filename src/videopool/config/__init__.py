"""The configuration: nodes made into objects, choices looked up, errors of users."""
