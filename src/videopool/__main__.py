"""`python -m videopool` runs the console script."""

from videopool.app import main

main()
