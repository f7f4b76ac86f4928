"""What a program may change on a host, written down: after it has gone it is to be as before.

Everything is taken as it comes rather than looked for, so that what is changed by parts yet to be written is seen too.
"""

import json

# One answer after the other, each after a line of its own. What a command that is not installed says is the same both
# times. Files that runtime directories hold are taken with their text, whoever's they are.
_LOOKS = """
for look in \\
    'ip -d -j link' 'ip -j address' \\
    'ip -4 -d -j route show table all' 'ip -6 -d -j route show table all' \\
    'ip -4 -d -j rule' 'ip -6 -d -j rule' \\
    'nft -s list ruleset' \\
    'cat /etc/resolv.conf' 'resolvectl dns' 'resolvectl domain' 'resolvconf -l' \\
    'grep -rs . /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf' \\
    'find /run /etc/wireguard /etc/wgdisco -printf %y:%m:%u:%p:%l\\n' \\
    'find /run -type f -size -1M -exec sha256sum {} +' \\
    'find /var/lib/wgdisco -mindepth 1'
do
    echo "# $look"
    $look 2>&1
done
"""
# What changes by itself: how long a route lasts; locks of iptables and ufw; empty directories of the two resolvers
_PASSING = ("expires", "preferred_life_time", "valid_life_time")
_NOT_OURS = ("/run/xtables.lock", "/run/ufw.lock", "/run/resolvconf/exclusive:", "/run/systemd/resolve/netif:")


def host_state(host):
    """Of a lab's host: answers by what was asked, in an order that does not depend on when it was made."""
    state = {}
    for part in host.run(["sh", "-c", _LOOKS]).stdout.split("# ")[1:]:
        look, _, answer = part.partition("\n")
        state[look] = sorted(_lines(answer))
    return state


def differences(before, after):
    """What is gone (-), and what has come (+), a line each."""
    lines = []
    for look, was in before.items():
        now = after[look]
        lines += [f"- {look}: {line}" for line in was if line not in now]
        lines += [f"+ {look}: {line}" for line in now if line not in was]
    return lines


def _lines(answer):
    if not answer.startswith("["):
        return [line for line in answer.splitlines() if not any(name in line for name in _NOT_OURS)]
    return [json.dumps(_lasting(item), sort_keys=True) for item in json.loads(answer)]


def _lasting(item):
    if isinstance(item, dict):
        return {name: _lasting(value) for name, value in item.items() if name not in _PASSING}
    return [_lasting(part) for part in item] if isinstance(item, list) else item
