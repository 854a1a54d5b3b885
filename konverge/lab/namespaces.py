"""A private network in which 10.244.0.0/16 and 10.96.0.0/16 are addresses of this machine (AnyIP).

``python -m konverge.lab.namespaces -- COMMAND...`` becomes COMMAND inside a new network namespace: loopback is
up, every address of the two ranges can be bound, and no packet can leave the machine. So Pods get addresses that
a real API server accepts, which refuses 127.0.0.0/8 in EndpointSlices. Nothing but the kernel is needed: root
takes a network namespace, everybody else a user namespace around it (user_namespaces(7)).

Exit code 3 where the kernel does not allow it; else the exit code is the command's.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from konverge.errors import CheckRefused

POD_RANGE = "10.244.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
"""``sched.h``; os.unshare arrives in Python 3.12."""
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
"""``netdevice(7)``."""
RTM_NEWROUTE, NLM_F_REQUEST_ACK_CREATE, NLMSG_ERROR = 24, 0x1 | 0x4 | 0x400, 2
RT_TABLE_LOCAL, RTPROT_BOOT, RT_SCOPE_HOST, RTN_LOCAL, RTA_DST, RTA_OIF = 255, 3, 254, 2, 1, 4
"""``rtnetlink(7)``."""


def enter_private_network(ranges: Iterable[str] = (POD_RANGE, SERVICE_RANGE)) -> None:
    """Move this process, which must have one thread only, into a new network with ``ranges`` on loopback.

    Raises CheckRefused (reason NoPrivateNetwork) where the kernel or its settings do not allow it.
    """
    if not sys.platform.startswith("linux"):
        raise _refuse("network namespaces exist on Linux only")
    try:
        _unshare()
        raise_loopback()
        for network in ranges:
            add_local_range(network)
    except OSError as error:
        raise _refuse(f"{error.strerror} (user namespaces may be switched off)") from error


def _unshare() -> None:
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):  # root of a container may lack CAP_SYS_ADMIN
            _call_unshare(CLONE_NEWNET)
            return
    user, group = os.geteuid(), os.getegid()
    _call_unshare(CLONE_NEWUSER | CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _call_unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def raise_loopback() -> None:
    """Set the interface ``lo`` up, as ``ip link set lo up`` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sH22x", b"lo", 0)
        answer = fcntl.ioctl(handle, SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("16xH", answer)
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))


def add_local_range(network: str) -> None:
    """Make every address of an IPv4 range local, as ``ip route add local NETWORK dev lo`` does."""
    parsed = ipaddress.IPv4Network(network)
    route = struct.pack(
        "=8BI",
        socket.AF_INET,
        parsed.prefixlen,
        0,
        0,
        RT_TABLE_LOCAL,
        RTPROT_BOOT,
        RT_SCOPE_HOST,
        RTN_LOCAL,
        0,
    )
    route += struct.pack("=HH4s", 8, RTA_DST, parsed.network_address.packed)
    route += struct.pack("=HHI", 8, RTA_OIF, socket.if_nametoindex("lo"))
    header = struct.pack("=IHHII", 16 + len(route), RTM_NEWROUTE, NLM_F_REQUEST_ACK_CREATE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as channel:
        channel.settimeout(5)
        channel.sendto(header + route, (0, 0))
        _check_answer(channel.recv(4096))


def _check_answer(answer: bytes) -> None:
    """Raise OSError where the kernel did not acknowledge; a range that is there already is fine."""
    (kind,) = struct.unpack_from("=4xH", answer)
    if kind != NLMSG_ERROR:
        raise OSError(errno.EPROTO, "unexpected netlink answer")
    (code,) = struct.unpack_from("=i", answer, 16)
    if code not in (0, -errno.EEXIST):
        raise OSError(-code, os.strerror(-code))


def _refuse(cause: str) -> CheckRefused:
    return CheckRefused(
        f"No private network for real Pod addresses: {cause}",
        reason="NoPrivateNetwork",
        hint="howto/real-control-plane.md#no-private-network",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Become the command inside the private network; returns only where that fails."""
    parser = argparse.ArgumentParser(prog="python -m konverge.lab.namespaces")
    parser.add_argument("--range", action="append", dest="ranges", help="local range, may be repeated")
    parser.add_argument("command", nargs="+", help="the command, after --")
    options = parser.parse_args(arguments)
    try:
        enter_private_network(options.ranges or (POD_RANGE, SERVICE_RANGE))
        os.execvp(options.command[0], options.command)  # noqa: S606 - becoming the command is the point
    except CheckRefused as error:
        sys.stderr.write(f"{error.message}\n")
        return 3
    except OSError as error:
        sys.stderr.write(f"{options.command[0]}: {error.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main())
