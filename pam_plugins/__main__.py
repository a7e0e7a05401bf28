"""`python -m pam_plugins` is `pam`."""

from pam_plugins.cli import main

main()
