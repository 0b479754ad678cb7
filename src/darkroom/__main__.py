"""`python -m darkroom` is the command `darkroom`."""

from darkroom.cli.main import main

main()
