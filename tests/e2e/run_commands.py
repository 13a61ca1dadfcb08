"""Runs commands of the plugin one after another in one process, as `cds-plugin` would: a JSON line of each.

Standard input holds a JSON list of lists of arguments.
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout

from cds_plugin import cli

for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["cds-plugin", *arguments]
    code: object = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    print(json.dumps({"command": arguments, "code": code, "out": out.getvalue(), "err": err.getvalue()}))
