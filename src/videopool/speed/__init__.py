"""Measurement of speed: random models of given sizes, interleaved timing, rates, and what arithmetic allows."""
