"""`python -m appraiser`."""

from appraiser.cli import main

main()
