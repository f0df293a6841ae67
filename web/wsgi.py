"""The names under which the web layers pass things to each other in a WSGI environment.

This file owns these names and nothing else: no code, no imports.
"""

HAND_OVER = "pluto.hand_over"  # a function that gives the connection's socket away after a response's first bytes
ADDRESS = "pluto.address"  # the address that a stream counts for; nothing where it isn't counted
BEGAN_AT = "pluto.began_at"  # when the request began, on the monotonic clock
HTTP_SERVER = "pluto.server"  # the HTTP server, where it is ours
RETRY_AFTER_S = "5"  # sent with every 503
