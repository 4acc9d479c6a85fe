"""Runs a command on a terminal and shows what stands on its screen.

    terminal.py COLUMNS LINES SECONDS COMMAND...

After SECONDS it gets a ctrl-C. Prints lines that scrolled away, the last screen between
rules, and "escapes N, colours N, wrapped N, unknown [...]": escape sequences that came,
colours among them, lines that did not fit, and what this small terminal (cursor up, home,
erase, colours) does not know. The exit status is the command's, 128 + its signal."""
import fcntl, os, pty, re, select, signal, struct, sys, termios, time

columns, rows, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])


class Screen:
    def __init__(self):
        self.lines = [[" "] * columns for _ in range(rows)]
        self.r = self.c = self.wrapped = self.escapes = self.colours = 0
        self.gone, self.unknown, self.rest = [], set(), ""

    def newline(self):
        self.r += 1
        if self.r == rows:
            self.gone.append("".join(self.lines.pop(0)).rstrip())
            self.lines.append([" "] * columns)
            self.r -= 1

    def erase(self, first):
        self.lines[self.r][self.c:] = [" "] * (columns - self.c)
        for line in self.lines[first:]:
            line[:] = [" "] * columns

    def escape(self, n, kind):
        self.escapes += 1
        if kind == "A":
            self.r = max(0, self.r - int(n or 1))
        elif kind == "H" and not n:
            self.r = self.c = 0
        elif kind == "J" and n in ("", "2"):
            self.erase(self.r + 1 if not n else 0)
        elif kind == "K" and not n:
            self.erase(rows)
        elif kind == "m":
            self.colours += n != "0"
        else:
            self.unknown.add(n + kind)

    def feed(self, text):
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.", text, re.S):
            if len(part) > 1:
                self.escape(part[2:-1], part[-1])
            elif part == "\n":
                self.newline()
            elif part == "\r":
                self.c = 0
            elif part < " ":
                self.unknown.add(part)
            else:
                if self.c == columns:
                    self.c = 0
                    self.wrapped += 1
                    self.newline()
                self.lines[self.r][self.c] = part
                self.c += 1


pid, fd = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    os.execvp(sys.argv[4], sys.argv[4:])
raw, end, stopped = b"", time.time() + seconds, 0
while True:
    if time.time() > end and stopped < 2:
        os.kill(pid, signal.SIGKILL if stopped else signal.SIGINT)
        stopped, end = stopped + 1, time.time() + 5
    if select.select([fd], [], [], 0.05)[0]:
        try:
            some = os.read(fd, 65536)
        except OSError: # the other end is closed
            break
        if not some:
            break
        raw += some
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
screen = Screen()
screen.feed(raw.decode(errors="replace"))
print(*screen.gone, "-" * columns, sep="\n")
print("\n".join("".join(line).rstrip() for line in screen.lines).rstrip("\n"))
print("-" * columns)
print(f"escapes {screen.escapes}, colours {screen.colours}, wrapped {screen.wrapped}, "
      f"unknown {sorted(screen.unknown)}")
sys.exit(status if status >= 0 else 128 - status)
