"""A TradingView of our own: symbol pages, quote sockets and their faults, for demo, tests and bench.

Owns: the invented markets, the pages that show them, the quote sockets, and the faults. Never does: import another
module of Pluto, connect to another server, write to disk. Runs in a process of its own (`python -m simulator`), in one
thread: gevent's hub, without monkey patching.

Each page contains `<meta name="generator" content="pluto-simulator">`: it tells Pluto that the prices are simulated.

Options (`--help` explains them):

    --host --port            the address to listen on
    --pace --rate --seed     how prices move: at a steady rate (lively), or as seldom as recorded (real)
    --heartbeat              seconds between heartbeats (default: 10, as recorded)
    --weight                 bytes of a page; real: as many as TradingView's
    --fault --delays         a fault of every ticker; a factor for all times in faults
    --replay                 a recorded page to serve: replay.py describes the formats
    --until-stdin-closes     end when standard input ends

Controls for tests and people (a ticker is `BTCUSD`, percent-encoded; `?exchange=` chooses another than BINANCE):

    GET    /truth/{ticker}            every price sent so far, with its time in ms, newest last
    POST   /price/{ticker}/{price}    sets the price; it then stands still
    POST   /number/{ticker}/{number}  the same with any JSON number, which is sent with exactly these digits
    POST   /rate/{ticker}/{rate}      sets the price's changes a second; 0: it stands still
    POST   /pace/{ticker}/{pace}      lively: the rate of the start; real: as seldom as recorded
    POST   /scale/{ticker}            ?pricescale=&minmov=&variable_tick_size=: how prices are rounded and printed
    POST   /fields/{ticker}           a JSON object overrides the quote's fields; null removes a field
    GET    /fault                     all faults, each with its effect
    POST   /fault/{ticker}/{fault}    starts a fault in open pages; in later ones too, unless it is marked * below
    DELETE /fault/{ticker}            ends the ticker's faults
    GET    /pages                     counts for each symbol: open quote sockets, open pages that faults reach, page
                                      loads, and requests for a quote socket, refused ones included

Faults (`GET /fault` and faults.py explain them; those marked * affect only what is open now):

    walls     bot_wall, wall_verify, wall_attention, wall_one_more_step, wall_robot, wall_cf_mitigated, wall_waf_action,
              wall_405, wall_202, wall_202_passes, wall_reloads, wall_solvable, empty_document, forbidden,
              too_many_requests
    loading   not_found, server_error, hangs, document_after_25_s, busy_loading, redirects_away, region_de, region_fr,
              region_in, renamed, wrong_symbol, redirects_to_port, redirects_to_file, redirects_to_data, redirects_round
    quotes    no_such_symbol, permission_denied, permission_denied_alternative, quote_timeout, spec_refused,
              critical_error*, protocol_error*, session_deleted*, symbol_removed*, hibernated*, session_lags,
              other_currency, extended_session, broken_frames, price_after_25_s, price_after_55_s
    sockets   two_sockets, one_socket_dropped*, socket_closed, socket_refused, socket_forbidden, socket_redirected,
              socket_expires, socket_dropped*, socket_silent, socket_in_worker
    the page  page_frozen*, page_reloads*, price_element_replaced*, classes_renamed, hidden_header_first,
              header_unmarked, header_of_another, header_swaps*, fills_when_seen, dom_disagrees, unreadable_price
    markets   delisted, out_of_session, holiday, pre_market, post_market, halted, delayed, end_of_day, connecting,
              replayed, lp_time_ahead, clock_ahead, clock_behind
    hostile   floods_messages, floods_console, huge_message, huge_price, huge_document, hoards_memory, loops_dialogs,
              opens_windows, closes_itself, leaves, leaves_by_refresh, reloads_without_end, downloads, breeds_frames,
              forges_messages, names_itself_badly, sets_traps

Also without a fault: pages under the hosts `de.…`, `fr.…` and `in.…` are in that region's language;
`/symbols/MATICUSD/` redirects to POLUSD. Symbols for special cases: 币安人生USDT, BTCUSDT.P_OI, NSE:JUNIPER (its tick
depends on the price), NSE:M&M, NYSE:NEE/PW and NASDAQ:AAPL.
"""
