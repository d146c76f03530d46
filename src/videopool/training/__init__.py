"""Fine-tuning: one run from its configuration to its export."""
