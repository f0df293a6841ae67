// The probe: the script that Pluto runs inside a TradingView symbol page, before the page's own scripts.
//
// It reads what the page's quote sockets say about the page's own symbol, the text of the price element, the title, and
// the page's facts (resolved symbol, structured data). It tells each to Python through one CDP binding. It judges
// nothing: Python decides what to believe. It never changes what the page shows to its scripts, never uses
// requestAnimationFrame (2/s in a background page), and never waits for anything.
//
// Every message is a JSON object with `kind`, `page` (performance.timeOrigin, which names the document), `at`, the
// page's clock in ms since the epoch, and `late`, the ms by which the page's last or next look is late, if many: what
// such a page reads may have waited as long:
//   start   {}                                a document begins
//   document {title, symbol, notFound, check, loaded}
//                                             the sort of document, once it is known, and whenever it changes
//   page    {…facts}                          once they exist, and whenever address or symbol change
//   frames  {socket, frames: [{session, name, status, fields, error}]}
//                                             quote frames of the page's own symbol that came together; fields are
//                                             partial; one message never holds two different prices; an unreadable
//                                             frame has no name
//   session {socket, event, session, names}   the page's order to a quote session, or the server's end of one
//   price   {element}                         the price element, when no recent frame explains its text
//   title   {title}                           a title with an arrow, while there is neither socket nor element
//   long    {ms}                              how long this page kept the renderer busy
//   pulse   {sockets: [{id, open, heard, beats}], header: {mode, market, chosen, count}, element, title}
//                                             the state of a running page: every 2 s, and at once when its feed speaks
//                                             after a silence
// An element is {text, painted, changed, change, percent}, a title {text, changed}: `painted` is when the text became
// what it is, `changed` when any text of the header last changed; 0 if none has since the document arrived.
((settings) => {
  const tell = window[settings.binding];
  delete window[settings.binding]; // neither the page nor its iframes may send messages as the probe
  // A service worker could answer for every page of the site, and pages can get round Playwright's block.
  delete Navigator.prototype.serviceWorker;
  delete window.ServiceWorkerContainer;
  if (window.top !== window || location.protocol === "chrome-error:") return;

  const LOOK_MS = 500;
  const LATE_MS = 500;
  const LONG_MS = 2000;
  const MAX_WALL_TEXT = 20_000; // characters of a document that are searched for a wall's words
  const MAX_SOCKETS = 8;
  const MAX_SESSIONS = 64;
  const MAX_BEATS = 6; // heartbeats whose times are kept

  const stringify = JSON.stringify;
  const parse = JSON.parse;
  const page = performance.timeOrigin;
  const sincePage = performance.now.bind(performance);
  const now = () => page + sincePage();
  let sentSince = 0; // ms
  let sentCount = 0;
  let lookDue = Infinity;
  let lastLate = 0; // ms by which the last look was late

  /** Caps length and rate just above Python's limits, so that Python still notices an excess. */
  function send(kind, message) {
    const at = now();
    if (at - sentSince > 1000) [sentSince, sentCount] = [at, 0];
    sentCount += 1;
    if (sentCount > settings.maxRate) return;
    const late = Math.max(lastLate, at - lookDue);
    const told = late > LATE_MS ? { late: Math.round(late) } : {};
    tell(stringify({ kind, page, at, ...told, ...message }).slice(0, settings.maxMessage + 1));
  }

  // --- the page's own quote sockets --------------------------------------------------------------------------------

  const ORDERS = new Set([
    "quote_create_session",
    "quote_add_symbols",
    "quote_remove_symbols",
    "quote_delete_session",
    "quote_fast_symbols",
    "quote_hibernate_all",
  ]);
  const BEFORE_SYMBOLS = new Set(["quote_create_session", "quote_hibernate_all"]); // can precede the first symbol
  const ENDS = new Set(["critical_error", "protocol_error"]);
  const BEAT = Symbol("heartbeat");
  const BROKEN = Symbol("broken");
  const OTHER = Symbol("neither a quote nor the end of one");

  const NativeWebSocket = window.WebSocket;
  const nativeSend = NativeWebSocket.prototype.send;
  const records = new WeakMap(); // socket → {id, socket, heard, beats, sessions that have our symbol}
  let kept = []; // the records of the sockets that Python knows
  let nextId = 1;

  const isOpen = ({ socket }) => socket.readyState <= NativeWebSocket.OPEN;

  function watch(socket) {
    const record = { id: nextId++, socket, heard: 0, beats: [], sessions: new Set() };
    records.set(socket, record);
    socket.addEventListener("message", (event) => onMessage(record, event.data));
    socket.addEventListener("close", () => kept.includes(record) && beat());
  }

  /** Puts the socket into every pulse until it has closed. */
  function keep(record) {
    if (kept.includes(record)) return;
    if (kept.length >= MAX_SOCKETS) kept.splice(Math.max(0, kept.findIndex((other) => !isOpen(other))), 1);
    kept.push(record);
  }

  /** The payloads of a socket.io message: one or more of ~m~LENGTH~m~PAYLOAD, LENGTH in UTF-16 units. */
  function* payloadsOf(data) {
    const header = /~m~(\d+)~m~/g;
    for (let match; (match = header.exec(data)); ) {
      const begin = header.lastIndex;
      const end = begin + Number(match[1]);
      const isWhole = end === data.length || (end < data.length && data.startsWith("~m~", end));
      yield isWhole ? data.slice(begin, end) : BROKEN; // after a wrong length, the rest may be right
      if (isWhole) header.lastIndex = end;
    }
  }

  function objectIn(text) {
    try {
      return Object(parse(text));
    } catch {
      return null;
    }
  }

  /** The parts of a socket's message: quotes and ends of sessions, BEAT, BROKEN or OTHER. */
  function* partsOf(data) {
    for (const payload of payloadsOf(data)) {
      if (payload === BROKEN) yield BROKEN;
      else if (payload.startsWith("~h~")) yield BEAT;
      else if (!/"(qsd|critical_error|protocol_error)"/.test(payload)) yield OTHER;
      else yield* messageIn(payload);
    }
  }

  function* messageIn(payload) {
    const message = objectIn(payload);
    if (message === null) {
      yield BROKEN;
      yield* partsOf(payload); // a length that was too great has swallowed the next parts
    } else if (message.m === "qsd" || ENDS.has(message.m)) {
      yield Array.isArray(message.p) ? message : BROKEN;
    } else {
      yield OTHER;
    }
  }

  /** "BINANCE:BTCUSD" from a name or a spec: ={"symbol":"BINANCE:BTCUSD",…} */
  function symbolOf(name) {
    return typeof name === "string" && name.startsWith("=") ? objectIn(name.slice(1))?.symbol : name;
  }

  const isOurs = (name) => symbolOf(name) === settings.symbol;

  function tellSession(record, event, [session, ...names]) {
    const ours = names.filter(isOurs);
    if (event === "quote_add_symbols" && ours.length) addSession(record, session);
    if (!record.sessions.has(session) && !BEFORE_SYMBOLS.has(event) && event !== "protocol_error") return;
    keep(record);
    send("session", { socket: record.id, event, session, names: ours });
  }

  function addSession(record, session) {
    if (record.sessions.size < MAX_SESSIONS) record.sessions.add(session);
  }

  function onOrder(record, data) {
    if (typeof data !== "string" || !data.includes('"quote_')) return;
    for (const payload of payloadsOf(data)) {
      const order = payload === BROKEN ? null : objectIn(payload);
      if (ORDERS.has(order?.m) && Array.isArray(order.p)) tellSession(record, order.m, order.p);
    }
  }

  /** A quote frame of the page's own symbol, or an unreadable one that may be its; null for another symbol's. */
  function frameIn(record, [session, quote]) {
    const { n: name, s: status, v, errmsg: error } = Object(quote);
    if (typeof name !== "string" || (status === "ok" && (typeof v !== "object" || v === null))) {
      const mayBeOurs = typeof session !== "string" || record.sessions.has(session);
      return mayBeOurs ? { session, name: null, fields: {} } : null;
    }
    if (!isOurs(name)) return null;
    addSession(record, session);
    const fields = {};
    for (const field of settings.fields) if (v?.[field] != null) fields[field] = v[field]; // null means no news
    return { session, name, status, fields, error };
  }

  /** Adds a frame to those that came with it. Merges parts of one change; a different price starts a new message. */
  function addFrame(record, frames, frame) {
    const isSame = (other) => ["session", "name", "status"].every((key) => other[key] === frame[key]);
    const price = frame.fields.lp;
    const prices = frames.filter(({ fields }) => fields.lp !== undefined);
    if (price !== undefined && prices.some((other) => isSame(other) || other.fields.lp !== price)) {
      tellFrames(record, frames.splice(0));
    }
    const part = frame.name === null ? -1 : frames.findIndex(isSame);
    const merged = part < 0 ? {} : frames.splice(part, 1)[0].fields;
    frames.push({ ...frame, fields: { ...merged, ...frame.fields } }); // the last readable frame counts
    if (price !== undefined) rememberPrice(`${record.id} ${frame.session} ${frame.name}`, Number(price));
  }

  function tellFrames(record, frames) {
    if (!frames.length) return false;
    keep(record);
    send("frames", { socket: record.id, frames });
    return true;
  }

  function onMessage(record, data) {
    if (typeof data !== "string") return;
    const wasSilent = now() - record.heard > settings.pulse;
    const frames = [];
    let isHeard = false;
    for (const part of partsOf(data)) {
      const isQuote = part.m === "qsd";
      const frame = part === BROKEN && record.sessions.size ? { name: null, fields: {} } : isQuote ? frameIn(record, part.p) : null;
      if (frame !== null) addFrame(record, frames, frame);
      else if (ENDS.has(part.m)) tellSession(record, part.m, part.p);
      if (part === BEAT) record.beats = [...record.beats, now()].slice(-MAX_BEATS);
      isHeard ||= part !== BROKEN && frame?.name !== null;
    }
    if (isHeard) record.heard = now();
    const isTold = tellFrames(record, frames);
    if (wasSilent && isHeard && !isTold && kept.includes(record)) beat();
  }

  // Prices that frames explain: the current ones, and those replaced a moment ago.

  let said = new Map(); // session and name → price
  let replaced = []; // [{price, until}]

  function rememberPrice(who, price) {
    const before = said.get(who);
    if (before === price) return;
    replaced = replaced.filter(({ until }) => now() - until < settings.explained);
    if (before !== undefined) replaced.push({ price: before, until: now() });
    if (said.size > MAX_SESSIONS) said = new Map();
    said.set(who, price);
  }

  /** Whether a recent frame told this price. A page that prints fewer decimals than the frame rounds it. */
  function isExplained(text) {
    const shown = text.replaceAll(",", "");
    const step = 10 ** -(shown.split(".")[1]?.length ?? 0);
    const isShown = (price) => Math.abs(price - Number(shown)) <= step * 0.501;
    if ([...said.values()].some(isShown)) return true;
    return replaced.some(({ price, until }) => isShown(price) && now() - until < settings.explained);
  }

  window.WebSocket = new Proxy(NativeWebSocket, {
    construct(target, args, newTarget) {
      const socket = Reflect.construct(target, args, newTarget);
      watch(socket);
      return socket;
    },
  });
  NativeWebSocket.prototype.constructor = window.WebSocket;
  NativeWebSocket.prototype.send = new Proxy(nativeSend, {
    apply(target, socket, args) {
      const result = Reflect.apply(target, socket, args);
      if (records.has(socket)) onOrder(records.get(socket), args[0]);
      return result;
    },
  });

  // --- the price element -------------------------------------------------------------------------------------------

  const ROOTS = ".js-symbol-page-header-root";
  const TICKERS = ".js-symbol-header-ticker";
  const MARKED = '[data-qa-id="symbol-last-value"]';
  const PRICES = `${MARKED}, .js-symbol-last`;
  let header = { node: null, chosen: 0, count: 0 };
  let nodes = []; // the elements of price, change and time
  let texts = ["", "", ""]; // their texts
  let painted = 0; // when the price became this text
  let changed = 0; // when any of them last changed, since the document arrived
  let standing = 0; // timer: a pulse once the texts have not changed for a while
  let headerNodes = [];
  const repaints = new MutationObserver(() => onRepaint());
  const headerChanges = new MutationObserver((changes) => {
    if (changes.some(({ target }) => !nodes[0]?.contains(target))) followElement();
  });

  const isHidden = (node) => node.closest(".i-hidden") !== null;
  const isAnothers = (node) => ![null, settings.symbol].includes(node.closest("[data-symbol]")?.dataset.symbol ?? null);

  /** The symbol's own header ticker; the first if none names its symbol. Never a hidden one. */
  function chooseHeader() {
    const all = [...document.querySelectorAll(TICKERS)];
    const inside = all.filter((ticker) => ticker.closest(ROOTS) !== null);
    const tickers = inside.length ? inside : all;
    const shown = tickers.filter((ticker) => !isHidden(ticker));
    const areNamed = tickers.some((ticker) => ticker.hasAttribute("data-symbol"));
    const own = areNamed ? shown.find((ticker) => ticker.dataset.symbol === settings.symbol) : shown[0];
    if (tickers.length) return { node: own ?? null, chosen: tickers.indexOf(own) + 1, count: tickers.length };
    const root = document.querySelector(ROOTS);
    return { node: root !== null && !isHidden(root) ? root : null, chosen: 0, count: 0 };
  }

  /** An element of the header. Elements beside the ticker count only if there is a single ticker. */
  function inHeader(selector) {
    const root = header.count <= 1 ? header.node?.closest(ROOTS) : null;
    return header.node?.querySelector(selector) ?? root?.querySelector(selector) ?? null;
  }

  /** The page's own price element: in the header, else the only marked one. Never a menu's or a card's. */
  function findElement() {
    const marked = header.count ? [] : document.querySelectorAll(MARKED);
    const found = header.node?.querySelector(PRICES) ?? (marked.length === 1 ? marked[0] : null);
    return found === null || isHidden(found) || isAnothers(found) ? null : found;
  }

  function followHeader() {
    header = chooseHeader();
    const roots = [...document.querySelectorAll(ROOTS)];
    const found = roots.length ? roots : [...document.querySelectorAll(TICKERS)];
    if (found.length === headerNodes.length && found.every((node, index) => node === headerNodes[index])) return;
    headerNodes = found;
    headerChanges.disconnect();
    const options = { subtree: true, attributes: true, attributeFilter: ["class", "data-symbol"] };
    for (const node of found) headerChanges.observe(node, options);
  }

  function followElement(isFirst = false) {
    followHeader();
    const element = findElement();
    const around = [inHeader(".js-symbol-change-direction"), inHeader(".js-symbol-lp-time")];
    const found = element === null ? [] : [element, ...around];
    if (found.length === nodes.length && found.every((node, index) => node === nodes[index])) return;
    nodes = found;
    repaints.disconnect();
    for (const node of found) node && repaints.observe(node, { childList: true, subtree: true, characterData: true });
    onRepaint(isFirst);
  }

  /** One task can change a header's text and turn it into another symbol's. */
  function isStillOurs() {
    tellFacts();
    return !isHidden(nodes[0]) && !isAnothers(nodes[0]);
  }

  const textOf = (node) => (node?.isConnected ? node.textContent.slice(0, settings.maxText) : "");

  /** Only a changed text shows that the feed lives: the texts of the first look (`isFirst`) came with the document. */
  function onRepaint(isFirst = false) {
    const found = [0, 1, 2].map((index) => textOf(nodes[index]));
    if (found.every((text, index) => text === texts[index])) return;
    if (nodes.length && !isFirst && !isStillOurs()) return followElement();
    const [wasPrice, wasSilent] = [texts[0], now() - changed > settings.pulse];
    texts = found;
    if (texts[0] !== wasPrice) painted = now();
    if (texts[0] === "" || isFirst) return;
    changed = now();
    clearTimeout(standing);
    standing = setTimeout(beat, settings.disagreement + 50);
    if (texts[0] !== wasPrice && !isExplained(texts[0])) send("price", { element: elementNow() });
    else if (wasSilent && !kept.some(isOpen)) beat();
  }

  function elementNow() {
    const text = textOf(nodes[0]);
    if (text === "") return null;
    const change = textOf(nodes[1]?.querySelector(":scope > :not(.js-symbol-change-pt)"));
    const percent = textOf(inHeader(".js-symbol-change-pt"));
    return { text, painted, changed, change, percent };
  }

  /** The header's marks beside the price: "realtime", "delayed" …, and "delisted" … */
  function headerNow() {
    const mark = inHeader(".js-data-mode");
    const mode = mark === null || isHidden(mark) ? "" : mark.className.match(/tv-data-mode--(\w+)/)?.[1];
    const market = inHeader('[class*="tv-market-status--"]')?.className.match(/tv-market-status--([\w-]+)/)?.[1];
    return { mode, market, chosen: header.chosen, count: header.count };
  }

  // --- the title ---------------------------------------------------------------------------------------------------

  let keptTitle = null;
  let seenTitle = "";
  let titleChanged = 0;
  const titleOfDocument = Object.getOwnPropertyDescriptor(Document.prototype, "title");
  const fullTitle = () => keptTitle ?? titleOfDocument.get.call(document);
  const shownTitle = () => fullTitle().slice(0, settings.maxText);

  function lookAtTitle(isFirst = false) {
    const title = shownTitle();
    if (title === seenTitle) return;
    seenTitle = title;
    if (!isFirst) titleChanged = now();
    if (!nodes.length && !kept.some(isOpen) && titleNow() !== null) send("title", { title: titleNow() });
  }

  function titleNow() {
    const text = shownTitle();
    return /[▲▼]/.test(text) && text === seenTitle && titleChanged ? { text, changed: titleChanged } : null;
  }

  // --- the page's facts --------------------------------------------------------------------------------------------

  let toldPlace = "";

  function structuredOffer() {
    for (const block of document.querySelectorAll('script[type="application/ld+json"]')) {
      try {
        const data = JSON.parse(block.textContent);
        if (data["@type"] === "FinancialProduct" && data.offers) return data.offers;
      } catch {
        // another kind of block, or a broken one: skip it
      }
    }
    return null;
  }

  function tellFacts() {
    const info = window.initData?.symbolInfo;
    const place = `${location.href} ${info?.resolved_symbol}`;
    if (place === toldPlace) return;
    toldPlace = place;
    send("page", {
      url: location.href,
      title: shownTitle(),
      resolved: info?.resolved_symbol,
      description: info?.description,
      currency: info?.currency,
      typespecs: info?.typespecs,
      session: info?.session,
      offer: structuredOffer(),
      notFound: document.querySelector(".tv-http-error-page") !== null,
      simulated: document.querySelector('meta[name="generator"][content="pluto-simulator"]') !== null,
    });
  }

  // --- the sort of document: walls too ----------------------------------------------------------------------------

  const wallTexts = new RegExp(settings.wallTexts, "i");
  let isLoaded = false;
  let toldDocument = "";

  const asksForCheck = () =>
    document.querySelector(settings.wallForms) !== null ||
    wallTexts.test((document.body?.textContent ?? "").slice(0, MAX_WALL_TEXT));

  function tellDocument() {
    const symbol = window.initData?.symbolInfo != null || document.querySelector(`${ROOTS}, ${TICKERS}`) !== null;
    const facts = {
      title: symbol ? "" : shownTitle(), // a symbol page's title can change with every price
      symbol,
      notFound: document.querySelector(".tv-http-error-page") !== null,
      check: !symbol && asksForCheck(),
      loaded: isLoaded,
    };
    const text = stringify(facts);
    if (text === toldDocument) return;
    toldDocument = text;
    send("document", facts);
  }

  // --- slimming: drops work that only a visible page needs ---------------------------------------------------------

  function slim() {
    // Each change of the title costs the browser process about 1.5 ms. The page can still read its own title.
    Object.defineProperty(document, "title", {
      configurable: true,
      get: fullTitle,
      set: (title) => {
        keptTitle = String(title);
        lookAtTitle();
      },
    });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync("body { display: none !important }");
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  }

  // --- start -------------------------------------------------------------------------------------------------------

  function look(isFirst = false) {
    tellDocument();
    tellFacts();
    followElement(isFirst);
    lookAtTitle(isFirst);
  }

  /** A timer that runs late shows that the renderer was stopped or busy: what came meanwhile is read only now. */
  function lookAgain() {
    const wasLate = lastLate > LATE_MS;
    lastLate = Math.max(0, now() - lookDue);
    lookDue = now() + LOOK_MS;
    look();
    if (wasLate !== lastLate > LATE_MS) beat();
  }

  function beat() {
    const sockets = kept.map((record) => {
      const { id, heard, beats } = record;
      return { id, open: isOpen(record), heard, beats };
    });
    send("pulse", { sockets, header: headerNow(), element: elementNow(), title: titleNow() });
    kept = kept.filter(isOpen);
  }

  /** Reads the facts before the page's deferred scripts run, so that no frame comes earlier. */
  function start() {
    if (document.readyState === "loading") return;
    document.removeEventListener("readystatechange", start);
    look(true);
    lookDue = now() + LOOK_MS;
    setInterval(lookAgain, LOOK_MS);
  }

  send("start");
  if (settings.slim) slim();
  setInterval(beat, settings.pulse);
  // An endless loop freezes every page of the renderer; only the page that runs it sees it as "self".
  new PerformanceObserver((list) => {
    for (const { name, duration } of list.getEntries()) if (name === "self" && duration > LONG_MS) send("long", { ms: duration });
  }).observe({ entryTypes: ["longtask"] });
  document.addEventListener("readystatechange", start);
  const onLoaded = () => {
    isLoaded = true;
    tellDocument();
  };
  window.addEventListener("DOMContentLoaded", onLoaded, { capture: true, once: true });
  start();
})
