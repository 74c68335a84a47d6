"""``python -m astromorph``."""

from astromorph.cli.main import main

if __name__ == "__main__":
    main()
