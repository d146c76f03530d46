"""Planning: cost of points, nothing loaded."""
