"""OpenStack Swift with its S3 interface in one process on loopback: a real object server on a real disk.

Usage: python swift_server.py FOLDER ACCOUNT:USER SECRET [PORT]. Prints `ready PORT` when it answers; 0 (the default) takes any port.
Object, container and account server and the proxy in front of them are four WSGI applications on one hub of green threads.
"""

import eventlet

eventlet.monkey_patch()

import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from eventlet import GreenPool, wsgi  # noqa: E402

_STORES = ("object", "container", "account")
_PIPELINE = "catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth copy slo dlo versioned_writes symlink proxy-server"
_DEVICE = "d1"


def write_settings(folder: Path, user: str, secret: str) -> None:
    """The configuration files of all four servers."""
    etc = folder / "etc"
    for made in (etc, folder / "disk" / _DEVICE, folder / "cache"):
        made.mkdir(parents=True, exist_ok=True)
    (etc / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = test\nswift_hash_path_prefix = test\n[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    common = (
        f"[DEFAULT]\nswift_dir = {etc}\ndevices = {folder / 'disk'}\nmount_check = false\nlog_level = ERROR\n"
        f"recon_cache_path = {folder / 'cache'}\nfallocate_reserve = 0\n"
    )
    for name in _STORES:
        (etc / f"{name}-server.conf").write_text(
            f"{common}[pipeline:main]\npipeline = {name}-server\n[app:{name}-server]\nuse = egg:swift#{name}\n"
        )
    account, _, person = user.partition(":")
    options = {
        "s3api": "location = us-east-1\ndns_compliant_bucket_names = true\n",
        "tempauth": f"user_{account}_{person} = {secret} .admin\n",
        "versioned_writes": "allow_object_versioning = true\n",
    }
    filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n{options.get(name, '')}" for name in _PIPELINE.split()[:-1])
    (etc / "proxy-server.conf").write_text(
        f"{common}[pipeline:main]\npipeline = {_PIPELINE}\n[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n{filters}"
    )


def write_rings(folder: Path, sockets: dict[str, Any]) -> None:
    """Which store lies where: one device, one replica, on the ports that are open already."""
    from swift.common.ring import RingBuilder

    for name, socket in sockets.items():
        place = {"ip": "127.0.0.1", "port": socket.getsockname()[1]}
        replication = {f"replication_{key}": value for key, value in place.items()}
        builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
        builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "device": _DEVICE, "meta": "", **place, **replication})
        builder.rebalance()
        builder.get_ring().save(str(folder / "etc" / f"{name}.ring.gz"))


class _Silence:
    def write(self, *_: object) -> None:
        pass

    def flush(self) -> None:
        pass


def serve(folder: Path, user: str, secret: str, port: int = 0) -> None:
    """Serve until the process ends."""
    write_settings(folder, user, secret)
    from swift.common import utils

    utils.set_swift_dir(str(folder / "etc"))
    from swift.common.storage_policy import reload_storage_policies
    from swift.common.wsgi import SwiftHttpProtocol, loadapp

    reload_storage_policies()
    sockets = {name: eventlet.listen(("127.0.0.1", 0), backlog=512) for name in _STORES}
    write_rings(folder, sockets)
    front = eventlet.listen(("127.0.0.1", port), backlog=512)
    threads = [
        eventlet.spawn(
            wsgi.server,
            socket,
            loadapp(str(folder / "etc" / f"{name}-server.conf")),
            log=_Silence(),
            protocol=SwiftHttpProtocol,
            custom_pool=GreenPool(1000),
            log_output=False,
            capitalize_response_headers=False,  # else names of user metadata come back in title case
            socket_timeout=60,
            debug=False,
        )
        for name, socket in {**sockets, "proxy": front}.items()
    ]
    sys.stdout.write(f"ready {front.getsockname()[1]}\n")
    sys.stdout.flush()
    for thread in threads:
        thread.wait()


if __name__ == "__main__":
    serve(Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3], int((sys.argv[4:] or ["0"])[0]))
