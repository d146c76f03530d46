"""Command line: help, checked words, composed configurations."""
