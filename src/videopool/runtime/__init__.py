"""The process: interrupts, ranks, worker processes, the terminal, the exit code."""
