"""Which file system a folder is on, for those that no store may be on.

LMDB's locks and its map of the data file need one kernel that owns the file. On NFS, SMB or FUSE another machine, or a
server in between, may hold other bytes than the map shows, and a lock may not be heard elsewhere.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from landseer.ensemble.errors import StoreUnusable

MOUNTS = Path("/proc/self/mountinfo")
_REMOTE = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "drvfs", "fakeowner", "fuse", "fuseblk", "gfs2", "glusterfs"),
    *("gpfs", "grpcfuse", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "osxfs", "panfs", "prl_fs", "pvfs2"),
    *("smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"),
}


def require_local(folder: Path, mounts: Path = MOUNTS) -> None:
    """Raise StoreUnusable if a folder is on a file system of another machine, or of a program (FUSE)."""
    kind = file_system(folder, mounts)
    if kind in _REMOTE or kind.startswith("fuse."):
        raise StoreUnusable(
            f"{folder} is on {kind}, a file system of another machine or a program, where the locks and the memory map "
            "of a store are not safe: pictures may be lost. Use a folder on a local disk, or add --allow-network-store "
            "if only this machine uses the folder and you can index the pictures again"
        )


def file_system(folder: Path, mounts: Path = MOUNTS) -> str:
    """Return the type of the file system that a folder is on, or will be on once it is made; empty if unknown.

    mounts: as Linux lists them, the last one on top.
    """
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    path, best, kind = Path(os.path.realpath(folder)), -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) < 5:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4]))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), kinds[0]
    return kind
