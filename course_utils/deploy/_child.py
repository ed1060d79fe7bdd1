"""The serving process: `transformers serve`, ended together with the process that began it.

`serving.serve` runs this file and holds the other end of its standard input. When that process
is gone, killed without warning included, the pipe closes and so does the server.
"""

from __future__ import annotations

import os
import sys
import threading


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)


def main() -> None:
    """As ``transformers ARGUMENTS``, without its look for newer versions on the network."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from transformers.cli.transformers import app

    app(sys.argv[1:])


if __name__ == "__main__":
    main()
