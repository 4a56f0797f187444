"""Short hashes of configurations, for messages that are sent often."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache

from circinus.specification import Configuration


@lru_cache(maxsize=4096)
def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def configuration_hash(configuration: Configuration) -> str:
    """Return a hash of a configuration, or of a prefix of one, as twelve hexadecimal digits."""
    return _digest(json.dumps([[name, configuration[name].as_dict()] for name in configuration], sort_keys=True))
