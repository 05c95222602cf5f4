import os
import socket
import sys
import threading


def serve(connection, number):
    with connection, open(os.path.join(sys.argv[2], f"{number}.file"), "wb") as file:
        connection.sendall(b"accio\r\n")
        while chunk := connection.recv(int(sys.argv[3])):
            file.write(chunk)


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
number = 0
while True:
    connection, _ = listener.accept()
    number += 1
    threading.Thread(target=serve, args=(connection, number), daemon=True).start()
