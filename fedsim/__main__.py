"""``python -m fedsim`` equals ``fedsim``."""

from fedsim.cli import main

main()
