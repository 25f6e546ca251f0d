"""Programs that try to do more than compute, and how each has to end."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.bench.sandbox.running import Kind

LIBC = """
import sys
ctypes = sys.modules["ctypes"]
libc = ctypes.CDLL(None, use_errno=True)
"""


@dataclass(frozen=True)
class Attack:
    """A program with a function `attack` of one argument, a path that it may try to write to."""

    name: str
    program: str
    ends: tuple[Kind, ...]


def _attack(name: str, body: str, *ends: Kind, before: str = "") -> Attack:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return Attack(name, f"{before}\ndef attack(path):\n{lines}\n", ends)


ATTACKS = (
    _attack("an endless loop", "while True: pass", "time"),
    _attack("1 GB of memory", "return len(bytearray(10**9))", "memory"),
    _attack("1 GB in pieces", "return len([str(n) for n in range(10**8)])", "memory", "time"),
    _attack("a fork bomb", "import os\nwhile True: os.fork()", "forbidden"),
    _attack("a daemon", "import os\nos.fork() or os.setsid() or os.fork()", "forbidden"),
    _attack("a shell", "import os\nos.system('touch ' + path)", "forbidden"),
    _attack("another program", "import posix\nposix.execv('/bin/true', ['true'])", "forbidden"),
    _attack("a thread", "import _thread\n_thread.start_new_thread(print, ())", "forbidden"),
    _attack("a file written", "open(path, 'w').write('here')", "forbidden"),
    _attack("a folder made", "import os\nos.mkdir(path)", "forbidden"),
    _attack("a file read", "return open('/etc/passwd').read()", "forbidden"),
    _attack("a file looked at", "import os\nreturn os.path.exists('/etc/passwd')", "forbidden"),
    _attack("/proc/self/mem", "open('/proc/self/mem', 'r+b').write(b'0')", "forbidden"),
    _attack(
        "another's environment", "return open('/proc/1/environ', 'rb').read().hex()", "forbidden"
    ),
    _attack("its own pipe read", "import os\nreturn os.read(0, 10).hex()", "forbidden"),
    _attack(
        "a socket", "import _socket\n_socket.socket()", "error"
    ),  # no module of that name was loaded
    _attack("a socket by libc", "libc.socket(2, 1, 0)", "forbidden", before=LIBC),
    _attack("all importers back", "import _frozen_importlib_external as f\n"
            "sys.meta_path.append(f.PathFinder)\nsys.path_hooks.append(f.FileFinder.path_hook("
            "(f.SourceFileLoader, ['.py'])))\nimport socket", "forbidden", before="import sys"),
    _attack("signals ignored", "import _signal\n_signal.signal(24, _signal.SIG_IGN)", "forbidden"),
    _attack(
        "signals blocked, and a loop",
        "libc.pthread_sigmask(0, b'\\xff' * 128, None)\nwhile True: pass",
        "time",
        before=LIBC,
    ),
    _attack("its parent killed", "import os\nos.kill(os.getppid(), 9)", "forbidden"),
    _attack("its parent killed by libc", "libc.kill(-1, 9)", "forbidden", before=LIBC),
    _attack("an alarm", "import _signal\n_signal.alarm(1)", "forbidden"),
    _attack("its limits raised", "import resource as r\nr.setrlimit(r.RLIMIT_AS, (-1, -1))",
            "forbidden"),
    _attack("its filter taken off", "libc.prctl(22, 0)", "forbidden", before=LIBC),
    _attack("memory to execute", "libc.mmap(None, 4096, 7, 0x22, -1, 0)", "forbidden", before=LIBC),
    _attack("memory made executable", "buffer = ctypes.create_string_buffer(9000)\n"
            "libc.mprotect(ctypes.addressof(buffer) & -4096, 4096, 7)", "forbidden", before=LIBC),
    _attack("shared memory", "libc.memfd_create(b'a', 0)", "forbidden", before=LIBC),
    _attack("fork, by the number of x32", "libc.syscall(0x40000000 | 57)", "forbidden",
            before=LIBC),
    _attack("a file by io_uring", "libc.syscall(425, 8, b'\\0' * 120)", "forbidden", before=LIBC),
    _attack("root again", "libc.setuid(0)", "forbidden", before=LIBC),
    _attack("a debugger", "libc.ptrace(16, 1, 0, 0)", "forbidden", before=LIBC),
    _attack("ctypes at address 0", "ctypes.string_at(0)", "crash", before=LIBC),
    _attack("a callback into C", "ctypes.CFUNCTYPE(None)(print)()", "forbidden", "crash", "error",
            before=LIBC),
    _attack("bytecode of its own", "f = (lambda: 0)\n"
            "f.__code__ = f.__code__.replace(co_code=b'\\x64\\xff' * 50 + b'\\x53\\x00', "
            "co_consts=())\nreturn f()", "crash", "error", "forbidden"),
    _attack("deep recursion", "return attack(path)", "error"),
    _attack("recursion without a limit", "import sys\nsys.setrecursionlimit(2**31 - 1)\n"
            "return attack(path)", "memory", "time", "crash", "error"),
    _attack("an end in silence", "import os\nos._exit(0)", "error"),
    _attack("SystemExit", "raise SystemExit(0)", "error"),
    _attack("abort", "import os\nos.abort()", "crash"),
    _attack("sleep", "import time\ntime.sleep(100)", "forbidden"),
    _attack("a number of a gigabyte", "return 7 ** 10**9", "time", "memory"),
    _attack("a pattern that backtracks", "import re\nre.match('(a+)+b', 'a' * 64)", "time"),
    _attack("a flood", "import os\nwhile True: os.write(1, b'x' * 65536)", "output"),
    _attack("a flood of lines", "import os\nwhile True: os.write(1, b'{}\\n' * 999)", "output"),
    _attack("a value too long", "return 'x' * 10**6", "output"),
    _attack("a value without end", "a = []\na.append(a)\nreturn a", "error"),
    _attack("answers forged", "import os\nos.write(1, b'{\"value\": 1}\\n' * 3)", "error"),
    _attack("the door's word forged", "import os\nos.write(1, b'{\"unavailable\": 1}\\n')\n"
            "os._exit(0)", "error"),
    _attack("JSON of 50,000 levels", "import os\nos.write(1, b'[' * 50000 + b'\\n')\nos._exit(0)",
            "error"),
    _attack("a number of 10,000 digits", "import os\n"
            "os.write(1, b'{\"value\": ' + b'9' * 10000 + b'}\\n')\nos._exit(0)", "error"),
    _attack("no number", "import os\nos.write(1, b'{\"value\": NaN}\\n')\nos._exit(0)", "error"),
    _attack("an infinite number", "import os\nos.write(1, b'{\"value\": 1e999}\\n')\nos._exit(0)",
            "error"),
    _attack("a value of 900 levels", "v = 1\nfor _ in range(900): v = [v]\nreturn v", "error"),
    _attack("an error without a name", "class M(type): __name__ = property(lambda c: 1 / 0)\n"
            "class E(Exception, metaclass=M): pass\nraise E", "error", "forbidden"),
    Attack("half a character", "def attack(path): return '\ud800'", ("error",)),
    Attack("a zero byte", "def attack(path): return '\0'", ("error",)),
    Attack("a text that takes long to compile", "def attack(path): return " + "(0," * 90 + "*"
           + "[0] * 9 ** 9" + ")" * 90 + "\n" + "x = 1\n" * 10**6, ("time", "memory", "crash")),
    Attack("brackets 100,000 deep", "def attack(path): return " + "-" * 10**5 + "1",
           ("error", "memory", "crash")),
    _attack("pickle's opening", "import os\nos.write(1, b'\\x80\\x04cos\\nsystem\\n')\nos._exit(0)",
            "error"),
)  # fmt: skip
