"""One clip shown: its frames, and what a pooling keeps of them."""
