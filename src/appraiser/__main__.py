"""`python -m appraiser` is `appraiser`; `torchrun -m appraiser train ...` starts it on several devices."""

from appraiser.cli import main

if __name__ == "__main__":
    main()
