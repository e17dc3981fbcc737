"""Let `python -m edged` do what the `edged` command does."""

from edged.cli.main import main

if __name__ == "__main__":
    main()
