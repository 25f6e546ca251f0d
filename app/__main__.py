"""Serve: `trajguard serve` or `python -m app`, with any setting as a flag."""

from __future__ import annotations

import logging
import sys

import uvicorn

from app.main import create_app
from app.settings import BadSettingError, load_settings


def main(arguments: list[str]) -> int:
    """Serve until interrupted; 2 when a setting is at fault."""
    try:
        settings = load_settings(arguments)
        app = create_app(settings)
    except BadSettingError as error:
        print(f"error [{error.code}]: {error.message}", file=sys.stderr)  # noqa: T201
        return 2
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=30,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
