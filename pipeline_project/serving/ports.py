"""Why a port cannot be listened on, and who holds it."""

import errno
import os
import socket

import psutil

_FIRST_FREE_FOR_ALL = 1024


def port_problem(host: str, port: int) -> str | None:
    """Why a program cannot listen there, in words that follow "port N"; None when it can.

    The holder's name and process id are told where this user may know them.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return explain_bind_error(error, host, port)
    return None


def explain_bind_error(error: OSError, host: str, port: int) -> str:
    """What `bind` said, in words that follow "port N"."""
    if error.errno == errno.EADDRINUSE:
        return f"is taken by {port_holder(port) or 'another program'}"
    if error.errno == errno.EACCES and port < _FIRST_FREE_FOR_ALL:
        return f"is not allowed for this user (ports below {_FIRST_FREE_FOR_ALL} belong to the system)"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot be opened: {host} is no address of this machine"
    return f"cannot be opened: {os.strerror(error.errno).lower() if error.errno else error}"


def port_holder(port: int) -> str | None:
    """The program that listens on a port and its process id; None where this user may not know."""
    try:
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port]
        pid = next((connection.pid for connection in listening if connection.pid), None)
        return f"{psutil.Process(pid).name()} (process {pid})" if pid else None
    except psutil.Error:
        return None
