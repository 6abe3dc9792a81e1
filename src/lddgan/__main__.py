"""`python -m lddgan`, which torchrun wants."""

from lddgan.cli.main import main

main()
