# Opens a file and connects with io_uring, which does both in the kernel, without the usual calls.
import ctypes
import mmap
import os
import socket
import struct
import sys

OUTSIDE, PORT = @OUTSIDE@, @PORT@
ENTRIES, SETUP, ENTER = 4, 425, 426
OPENAT, CONNECT = 18, 16
libc = ctypes.CDLL(None, use_errno=True)


def report(*words):
    print(*words, file=sys.stderr, flush=True)


params = ctypes.create_string_buffer(120)
ring = libc.syscall(SETUP, ENTRIES, params)
if ring < 0:
    report("ring: denied:", os.strerror(ctypes.get_errno()))
    sys.exit(1)
report("ring: created")
head, tail, mask, _, _, _, array, _ = struct.unpack_from("8I", params, 40)
done_head, done_tail, done_mask, _, _, entries, _, _ = struct.unpack_from("8I", params, 80)
size = max(array + 4 * ENTRIES, entries + 16 * 2 * ENTRIES)
queue = mmap.mmap(ring, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=0)
requests = mmap.mmap(ring, 64 * ENTRIES, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=0x10000000)


def ask(code, fd, offset, address, length, flags):
    number = struct.unpack_from("I", queue, tail)[0]
    index = number & struct.unpack_from("I", queue, mask)[0]
    request = struct.pack("BBHiQQIIQ", code, 0, 0, fd, offset, address, length, flags, 7)
    requests[64 * index : 64 * index + 64] = request.ljust(64, b"\0")
    struct.pack_into("I", queue, array + 4 * index, index)
    struct.pack_into("I", queue, tail, number + 1)
    libc.syscall(ENTER, ring, 1, 1, 1, None, 0)
    number = struct.unpack_from("I", queue, done_head)[0]
    index = number & struct.unpack_from("I", queue, done_mask)[0]
    result = struct.unpack_from("i", queue, entries + 16 * index + 8)[0]
    struct.pack_into("I", queue, done_head, number + 1)
    return result


for path in OUTSIDE:
    name = ctypes.create_string_buffer(path.encode())
    flags = os.O_CREAT | os.O_WRONLY
    report("open", ask(OPENAT, -100, 0, ctypes.addressof(name), 0o666, flags))
own = socket.socket()
address = struct.pack("=H", socket.AF_INET) + struct.pack("!H4B", PORT, 127, 0, 0, 1) + bytes(8)
place = ctypes.create_string_buffer(address)
report("connect", ask(CONNECT, own.fileno(), 16, ctypes.addressof(place), 0, 0))
sys.exit(1)
