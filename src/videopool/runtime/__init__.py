"""The process: interrupts, ranks, devices, worker processes, the terminal, the exit code."""
