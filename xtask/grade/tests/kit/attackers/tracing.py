# Attaches to every other process, and reads and writes its memory.
import ctypes
import os
import sys

ATTACH, DETACH = 16, 17
libc = ctypes.CDLL(None, use_errno=True)
for name in filter(str.isdigit, os.listdir("/proc")):
    number = int(name)
    if number == os.getpid():
        continue
    print("other", open(f"/proc/{number}/comm").read().strip(), file=sys.stderr)
    if libc.ptrace(ATTACH, number, None, None) == 0:
        print("succeeded: attach", file=sys.stderr)
        os.waitpid(number, 0)
        libc.ptrace(DETACH, number, None, None)
    for mode in ("rb", "r+b"):
        try:
            with open(f"/proc/{number}/mem", mode):
                print("succeeded: memory", mode, file=sys.stderr)
        except OSError:
            pass
    for what in ("environ", "fd/0", "fd/1", "cwd/.", "root/."):
        path = f"/proc/{number}/{what}"
        try:
            os.close(os.open(path, os.O_RDONLY))
            print("succeeded:", what, file=sys.stderr)
        except OSError:
            pass
    for signal in (9, 19, 15, 2):
        try:
            os.kill(number, signal)
        except OSError:
            pass
print("done", file=sys.stderr)
sys.exit(1)
