"""`python -m latentpapers` is the `latentpapers` command."""

from latentpapers.cli import main

raise SystemExit(main())
