"""The names under which the web modules pass things to each other in a WSGI environment.

This file owns these names and nothing else: no code, no imports, no thread.
"""

HAND_OVER = "pluto.hand_over"  # a function; after the response's first bytes it passes the connection's socket on
ADDRESS = "pluto.address"  # the address for which a stream is counted; absent if the stream isn't counted
BEGAN_AT = "pluto.began_at"  # when the request's head was complete, on the monotonic clock
HTTP_FIGURES = "pluto.http_figures"  # a function that returns what Pluto's own HTTP server counts; absent elsewhere
