"""Files of the output folder: opened as they are, never as what a link in their place leads to."""

import errno
import os
import stat
from pathlib import Path
from typing import IO

# What file systems say that cannot sync: of FUSE, SMB and others, for folders above all.
_CANNOT_SYNC = {
    errno.EACCES,
    errno.EBADF,
    errno.EINVAL,
    errno.EISDIR,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EPERM,
}
_MODES = {os.O_RDONLY: "rb", os.O_WRONLY: "wb", os.O_RDWR: "r+b"}


def open_file(path: Path, flags: int) -> IO[bytes]:
    """Open a file for bytes, with the flags of `os.open`; nothing is truncated unless they say so.

    Raises:
        OSError: it cannot be opened, or is a symbolic link, a pipe or something else.
    """
    # Without blocking: a pipe would wait for its other end.
    extra = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | extra, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, f"{path.name} is a symbolic link") from error
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, f"{path.name} is no file")
        return os.fdopen(descriptor, _MODES[flags & os.O_ACCMODE])
    except BaseException:
        os.close(descriptor)
        raise


def sync(file: IO[bytes]) -> None:
    """Bring what was written to the disk, where the file system can do that."""
    file.flush()
    _sync_descriptor(file.fileno())


def sync_folder(path: Path) -> None:
    """Bring the names of a folder's files to the disk, where the file system can do that."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _CANNOT_SYNC:
            return
        raise
    try:
        _sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def _sync_descriptor(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
