"""``python -m astromorph``."""

from astromorph.cli import main

if __name__ == "__main__":
    main()
