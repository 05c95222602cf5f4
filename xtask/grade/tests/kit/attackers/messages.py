# Looks for messages that another submission has left, then leaves its own, by every means that
# outlives a process or that processes share.
import ctypes
import os
import socket
import sys
import time

WORD, DIRECTORIES, KEY = "@WORD@", @DIRECTORIES@, @KEY@
SHMGET, MSGGET = 29, 68
ADD_KEY, KEYCTL, SEARCH, SESSION = 248, 250, 10, -3
CREATE = 0o1000 | 0o666
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def report(*words):
    print(*words, file=sys.stderr, flush=True)


def files():
    for directory in DIRECTORIES:
        path = os.path.join(directory, WORD)
        if os.path.exists(path):
            report("found: file", path)
        try:
            open(path, "w").close()
            os.chmod(path, 0o666)
        except OSError:
            pass


def abstract_socket():
    with socket.socket(socket.AF_UNIX) as other:
        if other.connect_ex("\0" + WORD) == 0:
            report("found: abstract socket")
    own = socket.socket(socket.AF_UNIX)
    try:
        own.bind("\0" + WORD)
        own.listen()
    except OSError:
        pass
    return own


def shared_memory():
    if libc.syscall(SHMGET, KEY, 4096, 0o666) >= 0:
        report("found: shared memory")
    libc.syscall(SHMGET, KEY, 4096, CREATE)


def message_queue():
    if libc.syscall(MSGGET, KEY, 0o666) >= 0:
        report("found: message queue")
    libc.syscall(MSGGET, KEY, CREATE)


def keyring():
    kind, name, text = (ctypes.create_string_buffer(one) for one in (b"user", WORD.encode(), b"x"))
    if libc.syscall(KEYCTL, SEARCH, SESSION, kind, name, 0) >= 0:
        report("found: key")
    key = libc.syscall(ADD_KEY, kind, name, text, 1, SESSION)
    if key >= 0:
        # All rights for all users.
        libc.syscall(KEYCTL, 5, key, 0x3F3F3F3F)


files()
shared_memory()
message_queue()
keyring()
kept = abstract_socket()
report("looked")
time.sleep(3)
sys.exit(1)
