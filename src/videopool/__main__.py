"""`python -m videopool` is the console script."""

from videopool.app import main

main()
