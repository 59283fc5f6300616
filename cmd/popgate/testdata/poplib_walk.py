"""Walk a maildrop with poplib: HOST PORT USER PASSWORD DIRECTORY TOP...

Each message goes to DIRECTORY/N, its TOP N K for each K to DIRECTORY/N.topK,
and the replies to CAPA, STAT, LIST and UIDL to standard output, as JSON. TOP is
not sent for messages that are large for that many lines.
"""

import json
import pathlib
import poplib
import sys

# poplib limits the length of lines; the longest ones here have a megabyte.
poplib._MAXLINE = 4 << 20


def octets(lines):
    return b"".join(line + b"\r\n" for line in lines)


host, port, user, password, directory = sys.argv[1:6]
tops = sys.argv[6:]
target = pathlib.Path(directory)
pop = poplib.POP3(host, int(port), timeout=60)
result = {"capa": pop.capa()}
pop.user(user)
pop.pass_(password)
count, size = pop.stat()
result["stat"] = [count, size]
result["list"] = [line.decode() for line in pop.list()[1]]
result["uidl"] = [line.decode() for line in pop.uidl()[1]]
for n in range(1, count + 1):
    (target / str(n)).write_bytes(octets(pop.retr(n)[1]))
    for k in tops:
        if int(k) > 1000 and int(result["list"][n - 1].split()[1]) > 100000:
            continue
        (target / f"{n}.top{k}").write_bytes(octets(pop.top(n, k)[1]))
    if pop.list(n).decode() != "+OK " + result["list"][n - 1]:
        sys.exit(f"LIST {n}: {pop.list(n)}")
    if pop.uidl(n).decode() != "+OK " + result["uidl"][n - 1]:
        sys.exit(f"UIDL {n}: {pop.uidl(n)}")
pop.noop()
pop.quit()
json.dump(result, sys.stdout)
