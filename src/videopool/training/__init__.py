"""Fine-tuning: one run, configuration to export."""
