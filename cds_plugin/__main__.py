"""`python -m cds_plugin` is `cds-plugin`."""

from cds_plugin.cli import main

main()
