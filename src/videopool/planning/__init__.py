"""What points would cost, from configuration alone."""
