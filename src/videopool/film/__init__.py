"""One clip shown: its frames, and the tokens of poolings."""
