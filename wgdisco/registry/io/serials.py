"""Zone serials that never go back, whatever becomes of the clock or of the process."""

import logging
import time
from dataclasses import dataclass

from wgdisco.errors import LocalError
from wgdisco.registry.io.store import Store

LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Serials:
    """In blocks that the store has reserved, so that none comes twice."""

    store: Store
    last: int = 0
    reserved: int = 0

    def following(self) -> int:
        """The next: unix time, or one more than the last."""
        self.last = max(self.last + 1, int(time.time()))
        if self.last >= self.reserved:
            try:
                block = self.store.reserve_serial(self.last)
                self.last, self.reserved = block.start, block.stop
            except LocalError as error:
                # answers matter more: only a restart before the disk has room could go back
                LOG.error("%s", error)
        return self.last
