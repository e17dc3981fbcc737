"""Let `python -m edged.hub` do what the `edged-hub` command does."""

from edged.hub.cli import main

if __name__ == "__main__":
    main()
