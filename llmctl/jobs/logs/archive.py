"""Members of a ZIP file that is compressed with Zstandard, which Python's own `zipfile` learns in 3.14 only.

inspect_ai packs its .eval logs so.
"""

from __future__ import annotations

import io
import struct
import zipfile

from llmctl.errors import UserError

MEMBER_BYTES = 2**31  # of one member after unpacking: a log of two gigabytes is no log
_ZSTANDARD = 93  # the method's number in PKWARE's APPNOTE, section 4.4.5
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # section 4.3.7


def read_member(archive: zipfile.ZipFile, name: str, most: int = MEMBER_BYTES) -> bytes:
    """The bytes of a member, unpacked.

    Args:
        archive: Open for reading.
        name: Of the member.
        most: Bytes allowed after unpacking, whatever the archive says of itself.

    Raises:
        KeyError: No such member.
        UserError: It is larger than allowed, or the package for Zstandard is missing.
        zipfile.BadZipFile: It is broken.
    """
    info = archive.getinfo(name)
    if info.file_size > most:
        raise UserError(f"{archive.filename}: {name} is larger than {most:,} bytes: is it a log?")
    if info.compress_type != _ZSTANDARD:
        with archive.open(info) as member:
            data = member.read(most + 1)
    else:
        data = _unpack(_stored_bytes(archive, info), most)
    if len(data) > most:
        raise UserError(f"{archive.filename}: {name} is larger than {most:,} bytes: is it a log?")
    return data


def _stored_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a member as they lie in the file."""
    file = archive.fp
    if file is None:
        raise ValueError("the archive is closed")
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"the header of {info.filename} is broken")
    *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    file.seek(name_length + extra_length, io.SEEK_CUR)
    return file.read(info.compress_size)


def _unpack(data: bytes, most: int) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise UserError("the log is packed with Zstandard: pip install zstandard") from error
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
            return reader.read(most + 1)
    except zstandard.ZstdError as error:
        raise zipfile.BadZipFile(str(error)) from error
