"""`wgdisco join`, pinned mode: keys from the member's own `.conf`, endpoints from the registry's zone."""

import logging

LOG = logging.getLogger(__name__)
