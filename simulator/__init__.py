"""A TradingView of our own: symbol pages, quote sockets and their faults, for demo, tests and bench.

Owns: the invented markets, the pages that show them, the quote sockets, and the faults that trouble pages. Never does:
import another module of Pluto, connect to another server, write to disk. Runs in its own process (`python -m
simulator`), all in one thread: gevent's hub, unpatched.

Each page contains `<meta name="generator" content="pluto-simulator">`, by which Pluto recognises simulated prices.

Options (`--help` explains them):

    --host --port            where it listens
    --pace --rate --seed     how prices move: lively, or real (as seldom as recorded)
    --heartbeat              seconds between heartbeats: 10.00, as recorded
    --weight                 bytes of a page; real: as heavy as TradingView's
    --fault --delays         a fault of every ticker; a factor for all times in faults
    --replay                 a recorded page: see replay.py for the formats
    --until-stdin-closes

Controls for tests and people (a ticker is `BTCUSD`, percent-encoded; the exchange is BINANCE without `?exchange=`):

    GET    /truth/{ticker}            every price sent so far, with its time in ms, newest last
    POST   /price/{ticker}/{price}    sets the price now and ends the walk
    POST   /number/{ticker}/{number}  the same with any JSON number, sent digit by digit
    POST   /rate/{ticker}/{rate}      changes a second; 0 is a quiet market
    POST   /pace/{ticker}/{pace}      real: as seldom as recorded; lively: as at the start
    POST   /scale/{ticker}            ?pricescale=&minmov=&variable_tick_size=: rounding and printing of its prices
    POST   /fields/{ticker}           a JSON object overrides the quote's fields; null removes a field
    GET    /fault                     all faults, each with its effect
    POST   /fault/{ticker}/{fault}    starts a fault: at once and, if it lasts, at each later opening
    DELETE /fault/{ticker}            ends the ticker's faults
    GET    /pages                     per symbol: open quote sockets, pages that faults reach at once, page loads, and
                                      requested quote sockets, refused ones included

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

Without any fault: a page under the host `de.…`, `fr.…` or `in.…` is that region's; `/symbols/MATICUSD/` redirects to
POLUSD; special symbols: 币安人生USDT, BTCUSDT.P_OI, NSE:JUNIPER (its tick depends on the price), NSE:M&M, NYSE:NEE/PW
and NASDAQ:AAPL.
"""
