"""``python -m konverge.lab.kong``: with flags it runs alone, without any it is a container and reads KONG_*."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import fields

from konverge.lab.kong.flags import Flags
from konverge.lab.kong.listen import BadListen
from konverge.lab.kong.running import run_from_environment, run_node


def main(arguments: list[str]) -> int:
    """Run; return the exit code."""
    if not arguments or arguments[0] in ("docker-start", "start"):
        return run_from_environment()
    parser = argparse.ArgumentParser(prog="python -m konverge.lab.kong", description=__doc__)
    for field in fields(Flags):
        name = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            parser.add_argument(name, action="store_true")
        else:
            parser.add_argument(name, default=field.default)
    parser.add_argument("--control", default="", help="HOST:PORT or the path of a unix socket")
    given = vars(parser.parse_args(arguments))
    control = given.pop("control")
    try:
        settings = Flags(**given).settings()
    except BadListen as error:
        parser.error(str(error))
    return asyncio.run(run_node(settings, control=control))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
