"""Compute the messages that getmail should deliver: DIRECTORY COUNT.

Reads DIRECTORY/N as POP3 sends it and writes DIRECTORY/N.getmail as getmail
delivers it, for N from 1 to COUNT. getmail parses each message with the library
email and writes it again, with line ends of LF and with its own Return-Path in
place of the original one. All other octets stay the same.
"""

import email.parser
import pathlib
import sys


def delivered(octets):
    message = email.parser.BytesParser().parsebytes(octets.replace(b"\r\n", b"\n"))
    del message["Return-Path"]
    return message.as_bytes(policy=message.policy.clone(linesep="\n"))


directory = pathlib.Path(sys.argv[1])
for n in range(1, int(sys.argv[2]) + 1):
    result = delivered((directory / str(n)).read_bytes())
    (directory / f"{n}.getmail").write_bytes(result)
