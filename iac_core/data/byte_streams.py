"""Bytes of a file, plain or in gzip members, no more of them than are asked for."""

import zlib
from typing import BinaryIO

PIECE_BYTES = 2**20
"""At most so many bytes are inflated at a time."""
_CHUNK_BYTES = 2**16
_MOST_EMPTY_MEMBERS = 100


class PlainStream:
    """Bytes of a file as they are."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, n_bytes: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        return self._file.read(n_bytes)

    def fill(self, target: memoryview) -> None:
        """Fill all of the target; raises `EOFError` if there is less."""
        done = 0
        while done < len(target):
            count = self._file.readinto(target[done:])  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            done += count


class GzipStream:
    """Inflated bytes of gzip members, one after the other; zlib compares each one's checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflater = zlib.decompressobj(wbits=31)
        self._input = b""
        self._is_at_end = False
        self._n_empty = 0
        self._n_of_member = 0

    def read(self, n_bytes: int) -> bytes:
        """Return the next bytes, fewer at the end of the last member."""
        pieces = []
        while n_bytes and (piece := self._piece(n_bytes)):
            pieces.append(piece)
            n_bytes -= len(piece)
        return b"".join(pieces)

    def fill(self, target: memoryview) -> None:
        """Fill all of the target; raises `EOFError` if there is less."""
        done = 0
        while done < len(target):
            piece = self._piece(min(PIECE_BYTES, len(target) - done))
            if not piece:
                raise EOFError
            target[done : done + len(piece)] = piece
            done += len(piece)

    def _piece(self, most: int) -> bytes:
        """At least one byte; none at the end of the file, every checksum compared."""
        while not self._is_at_end:
            if self._inflater.eof and not self._next_member():
                break
            piece = self._inflater.decompress(self._input, most)
            is_over = self._inflater.eof
            self._input = self._inflater.unused_data if is_over else self._inflater.unconsumed_tail
            if piece:
                self._n_of_member += len(piece)
                return piece
            if not is_over and not self._input:
                self._input = self._file.read(_CHUNK_BYTES)
                if not self._input:
                    raise EOFError
        return b""

    def _next_member(self) -> bool:
        """Begin with what follows a member; zeros until the end are padding."""
        self._n_empty += self._n_of_member == 0
        self._n_of_member = 0
        while True:
            self._input = self._input.lstrip(b"\0")
            if self._input:
                break
            self._input = self._file.read(_CHUNK_BYTES)
            if not self._input:
                self._is_at_end = True
                return False
        if self._n_empty > _MOST_EMPTY_MEMBERS:
            raise zlib.error("too many empty members")
        self._inflater = zlib.decompressobj(wbits=31)
        return True
