"""`wgdisco join`, pinned mode: keys from the member's own `.conf`, endpoints from the registry's zone."""

import asyncio
import logging
from dataclasses import dataclass

from wgdisco.api import PathWord, StatusReport
from wgdisco.dnssd.names import ZoneNames
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.peer.agent import Agent, Found, News, Ourselves, PathChanged, Refused
from wgdisco.peer.io.interfaces import local_addresses
from wgdisco.peer.path import Action, Initiate, SetPeer
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.events import DeviceGone
from wgdisco.tunnel.io.control import ControlServer
from wgdisco.tunnel.io.engine import Engine, boot_time
from wgdisco.tunnel.io.interface import tunnel_interface

LOG = logging.getLogger(__name__)
