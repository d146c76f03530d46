"""Token norms of a model, measured stage by stage."""
