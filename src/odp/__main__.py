"""`python -m odp`, for launchers that want a module: `accelerate launch -m odp heal ...`."""

from odp.cli import main

if __name__ == "__main__":
    main()
