"""A TradingView of our own: symbol pages, quote sockets and their faults, for demo, tests and bench.

Owns: the invented markets, the pages that show them, the quote sockets, and the faults that put pages into trouble.
Never does: import another module of Pluto, call anyone, write to disk. Runs in a process of its own (`python -m
simulator`), all in one thread: gevent's hub, unpatched.

Each page says `<meta name="generator" content="pluto-simulator">`: so Pluto knows a simulated price.

How tests and people steer it (a ticker is `BTCUSD`; `?exchange=` means another than BINANCE):

    GET    /truth/{ticker}           every price sent so far, with its time in ms, newest last
    POST   /price/{ticker}/{price}   sets the price now and ends the walk
    POST   /number/{ticker}/{number} the same with any JSON number, which is sent digit by digit
    POST   /rate/{ticker}/{rate}     changes a second; 0 is a quiet market
    POST   /pace/{ticker}/{pace}     real: as seldom as recorded; lively: as at the start
    POST   /scale/{ticker}           ?pricescale=&minmov=&variable_tick_size=: how its prices are rounded and printed
    POST   /fields/{ticker}          a JSON object takes the place of the quote's own fields; null takes one away
    GET    /fault                    the faults there are, each with what it does
    POST   /fault/{ticker}/{fault}   into trouble: at once and, where it lasts, at each later opening
    DELETE /fault/{ticker}           out of trouble
    GET    /pages                    of each symbol: open quote sockets, pages that faults reach at once, page loads,
                                     upgrades to a quote socket that were asked for, also those that were refused
"""
