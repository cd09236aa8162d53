"""The containers' health check: exit 0 if this container's worker says on its web port that it is live and ready.

``healthcheck.py 8088`` asks another port, ``healthcheck.py 8090 /livez`` another path: the service's, the page's.

Standard library only and no el4ner import: it runs every few seconds beside the worker.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request


def main() -> int:
    """0 for HTTP 200, else 1 with the reason on standard error, which `docker inspect` shows."""
    port, path, *_ = [*sys.argv[1:], "", ""]
    url = f"http://127.0.0.1:{port or os.environ.get('EL4NER_WORKER__WEB_PORT', '8080')}{path or '/healthz'}"
    # No proxy for the loopback address, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=4) as answer:
            return 0 if answer.status == 200 else 1
    except urllib.error.HTTPError as error:
        with error:
            sys.stderr.write(f"{url}: {error.code} {error.read(2_000).decode(errors='replace')}\n")
    except OSError as error:
        sys.stderr.write(f"{url}: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
