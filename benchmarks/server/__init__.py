"""Load for `encort serve`, over real sockets.

`client` speaks HTTP with little overhead; `figures` compares throughput and latency with the model in process and with
other servers, and `soak` mixes disconnects, deadlines, reloads and overload for minutes.
"""
