"""Film: one clip as the model sees it."""
