"""The process: ranks, devices, signals, terminal, exit code."""
