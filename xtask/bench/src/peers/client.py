import socket
import sys

with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    greeting = b""
    while len(greeting) < 7:
        greeting += connection.recv(7 - len(greeting))
    with open(sys.argv[3], "rb") as file:
        while chunk := file.read(int(sys.argv[4])):
            connection.sendall(chunk)
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)
