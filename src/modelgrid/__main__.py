"""``python -m modelgrid`` is the command ``modelgrid``."""

from modelgrid.cli import main

if __name__ == "__main__":
    main()
